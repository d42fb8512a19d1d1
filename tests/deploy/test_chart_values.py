"""values.yaml, values.schema.json and the table in the README tell the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
import yaml

from .chart_kit import REQUIRED, merged
from .documents import Json
from .sources import CHART, ROOT, rendered
from .values_table import README, readme, values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
ACCEPTED = {
    "global",
    *("inferenceExtension", "inferencePool", "inferenceObjectives", "experimentalHttpRoute"),
    *("router.tokenizer", "router.latencyPredictor", "provider.gke.autopilot", "provider.gke.preferredBackends"),
    *("router.epp.image.hub", "router.epp.image.name", "router.epp.parser"),
}
"""Keys of other charts and of Helm, which the schema lets through for the sake of what is said about them."""


def _leaves(value: Json, path: str = "") -> Iterator[str]:
    """Every value that no map further divides."""
    if not isinstance(value, dict) or not value or path in {one.path for one in values()}:
        yield path
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{path}.{key}".lstrip("."))


def _in_schema(schema: Json, path: str = "") -> Iterator[str]:
    if schema.get("additionalProperties", True) is not False or path in {one.path for one in values()}:
        yield path
        return
    for key, inner in schema["properties"].items():
        yield from _in_schema(inner, f"{path}.{key}".lstrip("."))


def test_every_value_is_explained() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    assert sorted(_leaves(defaults)) == sorted(one.path for one in values())


def test_the_schema_has_every_value_and_no_other() -> None:
    assert set(_in_schema(SCHEMA)) - ACCEPTED == {one.path for one in values()}


def test_the_readme_has_the_table() -> None:
    assert README.read_text() == readme(), "python -m tests.deploy.values_table writes it"


def test_an_explanation_is_a_sentence_that_fits_a_table() -> None:
    assert [one.path for one in values() if not one.about.endswith(".") or "|" in one.about] == []


GUIDES = (README, ROOT / "docs" / "install" / "helm.md")


def _examples() -> list[str]:
    return [block for guide in GUIDES for block in re.findall(r"```yaml\n(.+?)```", guide.read_text(), re.DOTALL)]


@pytest.mark.parametrize("example", _examples(), ids=lambda text: text.split("\n", 1)[0])
def test_the_examples_of_the_guides_are_values_of_the_chart(example: str) -> None:
    assert rendered(merged(REQUIRED, yaml.safe_load(example))) != []
