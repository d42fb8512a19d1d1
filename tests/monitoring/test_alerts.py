"""The alert rules: promtool takes them, each fires and stays silent as its case says, the runbook has a section."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from .exported import exported
from .promql import labels_of
from .queries import FOLDER, alerts

ROOT = Path(__file__).parents[2]
RULES = FOLDER / "alerts.yaml"
CASES = Path(__file__).with_name("alerts.test.yaml")
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
NAMES = [rule["alert"] for rule in alerts()]
PARTS = ("Means", "Look", "Do")


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.needs_debian("prometheus")
def test_promtool_takes_the_rules() -> None:
    assert promtool("check", "rules", RULES) == ""


@pytest.mark.needs_debian("prometheus")
def test_each_alert_fires_and_stays_silent_as_its_case_says() -> None:
    assert promtool("test", "rules", CASES) == ""


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    for case in cases:
        checks = case["alert_rule_test"]
        assert {check["alertname"] for check in checks} == {case["name"]}
        assert [bool(check["exp_alerts"]) for check in checks] == [False, True], case["name"]
        assert any('job="good"' in series["series"] for series in case["input_series"]), case["name"]
    assert [case["name"] for case in cases] == NAMES


@pytest.mark.parametrize("rule", alerts(), ids=NAMES)
def test_every_series_and_label_is_exported(rule: dict[str, str]) -> None:
    found = labels_of(rule["expr"], exported())
    told = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert set(told) <= found


@pytest.mark.parametrize("rule", alerts(), ids=NAMES)
def test_every_alert_tells_how_bad_it_is_and_where_to_read_on(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "runbook_url"}
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (ROOT / path).is_file()
    assert anchor == str(rule["alert"]).lower()


def sections() -> dict[str, str]:
    """Title → text of the runbook's sections."""
    parts = re.split(r"^## (.+)\n", RUNBOOK, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_the_runbook_has_a_section_for_each_alert_in_their_order() -> None:
    assert [title for title in sections() if title.startswith("EPP")] == NAMES


@pytest.mark.parametrize("alert", NAMES)
def test_a_section_tells_what_it_means_how_to_look_and_what_to_do(alert: str) -> None:
    text = sections()[alert]
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == list(PARTS)
    assert "```sh" in text


def test_the_runbook_asks_only_for_what_is_exported() -> None:
    queries = re.findall(r"```promql\n(.*?)```", RUNBOOK, re.DOTALL)
    for query in (line for block in queries for line in block.splitlines() if line.strip()):
        labels_of(query, exported())
    named = set(re.findall(r"\b(?:llm_d_epp|vllm:)\w+", RUNBOOK))
    assert {name for name in named if name not in exported() and f"{name}_count" not in exported()} == set()
