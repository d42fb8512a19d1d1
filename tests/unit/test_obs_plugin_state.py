"""/debug/plugins/state: every configured plug-in with what it tells, or why it tells nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from epp.obs.plugin_state import inflight_state, plugins_state, rfc3339_nano
from epp.plugins import Plugin, PluginType
from epp.pool.ledger import Load
from epp.types import Step


class Silent:
    """Has no state."""


class Telling:
    """Tells what it is given."""

    def __init__(self, told: object) -> None:
        self._told = told

    def state(self) -> object:
        return self._told


class Failing:
    def state(self) -> object:
        raise SystemExit("no")


ENDLESS: list[object] = []
ENDLESS.append(ENDLESS)


def plugin(instance: object) -> Plugin:
    return Plugin("mine", PluginType("some-type", ("scorer",), type(instance), (), "tests"), instance, {})


def told(instance: object) -> Any:  # JSON
    shown = plugins_state({"mine": plugin(instance)}, 0)
    return json.loads(json.dumps(shown))["plugins"]["mine"]


def test_the_page_has_the_time_and_each_plug_in_by_name() -> None:
    assert plugins_state({"mine": plugin(Telling({"count": 3}))}, 1_700_000_000_120_000_000) == {
        "timestamp": "2023-11-14T22:13:20.12Z",
        "plugins": {"mine": {"name": "mine", "type": "some-type", "state": {"count": 3}}},
    }


TOLD = {
    "nothing": (None, None),
    "arrays": ({"a": np.arange(2.0), "n": np.int64(3)}, {"a": [0.0, 1.0], "n": 3}),
    "records": ({"step": Step("by", ("a",))}, {"step": {"by": "by", "removed": ["a"]}}),
    "no number": ([float("nan")], [None]),
    "other things": ({"kind": Silent}, {"kind": str(Silent)}),
}


@pytest.mark.parametrize(("given", "expected"), TOLD.values(), ids=list(TOLD))
def test_what_a_plug_in_tells_is_shown_as_json(given: object, expected: object) -> None:
    assert told(Telling(given))["state"] == expected


def test_a_plug_in_without_state_says_so() -> None:
    assert told(Silent()) == {"name": "mine", "type": "some-type", "message": "this plug-in tells no state"}


@pytest.mark.parametrize("instance", [Failing(), Telling(ENDLESS)], ids=["raises", "can't be encoded"])
def test_a_plug_in_that_fails_to_tell_has_a_message(instance: object) -> None:
    shown = told(instance)
    assert shown["message"].startswith("its state can't be told: ")
    assert "state" not in shown


def test_what_the_picker_keeps_for_a_type_is_told_as_its_state() -> None:
    shown = plugins_state({"mine": plugin(Silent())}, 0, {"some-type": lambda: {"kept": 1}})
    assert shown["plugins"]["mine"]["state"] == {"kept": 1}


def test_a_function_tells_no_state() -> None:
    kind = PluginType("some-type", ("scorer",), len, (), "tests")
    shown = plugins_state({"mine": Plugin("mine", kind, len, {})}, 0)
    assert "message" in shown["plugins"]["mine"]


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (10_000_000_000, "1970-01-01T00:00:10Z"),
    ],
)
def test_times_are_written_as_go_writes_them(ns: int, text: str) -> None:
    assert rfc3339_nano(ns) == text


def test_what_is_in_flight_is_told_busiest_first_and_cut() -> None:
    loads = {f"default/e{n}": Load(n, 10.0 * n) for n in range(102)}
    shown = inflight_state(loads)
    assert (shown["totalEndpoints"], shown["truncated"], len(shown["endpoints"])) == (102, True, 100)
    assert shown["endpoints"][0] == {"endpoint": "default/e101", "requests": 101, "tokens": 1010.0}
