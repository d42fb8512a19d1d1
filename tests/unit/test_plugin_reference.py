"""docs/built-in-plugins.md names every built-in plug-in and every setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from epp.plugins import Catalogue

REFERENCE = (Path(__file__).parents[2] / "docs" / "built-in-plugins.md").read_text().lower()
CATALOGUE = Catalogue.installed()
BUILT_IN = [name for name in CATALOGUE.names if CATALOGUE.find(name).target.__module__.startswith("scorers.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_plugin_and_its_settings_are_in_the_reference(name: str) -> None:
    kind = CATALOGUE.find(name)
    assert name in REFERENCE
    assert [setting.camel for setting in kind.settings if f"`{setting.camel.lower()}" not in REFERENCE] == []


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_plugin_says_in_one_line_what_it_does(name: str) -> None:
    doc = CATALOGUE.find(name).doc
    assert doc.endswith((".", ":"))
    assert len(doc) <= 120


def test_there_are_built_in_plugins() -> None:
    assert len(BUILT_IN) >= 30
