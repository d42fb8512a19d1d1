"""The dashboards ask only for what is exported, and every panel can be read."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from .exported import exported
from .promql import labels_of, variable_labels
from .queries import DASHBOARDS, FOLDER, dashboard, of_dashboard, panels, variables

each = pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
UNITS = {"short", "reqps", "cps", "s", "bytes", "percentunit"}


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_built_is_what_lies_there(build: ModuleType) -> None:
    there = {path: path.read_text() for path in (*DASHBOARDS, FOLDER / "prometheusrule.yaml")}
    assert build.built(FOLDER) == there, "run python deploy/monitoring/build.py"


@each
def test_every_series_and_label_is_exported(path: Path) -> None:
    for query in of_dashboard(path):
        found = labels_of(query.text, exported())
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= found, query
    for text in variables(path):
        variable_labels(text, exported())


@each
def test_every_panel_has_a_title_a_unit_and_tells_what_it_shows(path: Path) -> None:
    for panel in panels(path):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["description"].endswith("."), panel["title"]
    titles = [panel["title"] for panel in panels(path)]
    assert len(titles) == len(set(titles))


@each
def test_the_variables_are_there_and_used(path: Path) -> None:
    whole = path.read_text()
    names = [variable["name"] for variable in dashboard(path)["templating"]["list"]]
    assert names == ["DS_PROMETHEUS", "namespace", "pool", "model_name"]
    assert [name for name in names if f"${name}" not in whole and f"${{{name}}}" not in whole] == []
    assert {panel["datasource"]["uid"] for panel in panels(path)} == {"${DS_PROMETHEUS}"}


@each
def test_no_panel_lies_on_another(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(path)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_uids_differ() -> None:
    assert len({dashboard(path)["uid"] for path in DASHBOARDS}) == len(DASHBOARDS)
