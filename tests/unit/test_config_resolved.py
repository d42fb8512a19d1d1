"""The resolved configuration: everything written out, what was added marked, and the same when read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.config import Resolved, load
from epp.config.yaml import read
from tests.config_kit import catalogue, made

TEXTS = {
    "nothing": "",
    "scorers": "plugins: [{type: even, parameters: {share: 1}}, {type: by-heat, name: h}]",
    "profiles": """
        plugins: [{type: strict}, {type: allow-all, name: f}, {type: even}]
        schedulingProfiles:
        - {name: a, plugins: [{pluginRef: f}, {pluginRef: even, weight: 2.5}]}
        - {name: b, plugins: [{pluginRef: even, weight: -1}]}
        """,
    "sources": """
        plugins:
        - type: core-metrics-extractor
          name: x
          parameters: {engineConfigs: [{name: own, kvUsageSpec: 'kv{engine="0"}'}], defaultEngine: own}
        - {type: file-discovery, parameters: {path: /tmp/e.yaml}}
        dataLayer: {discovery: {pluginRef: file-discovery}}
        """,
    "an empty word in the place of a default": "plugins: [{type: metrics-data-source, parameters: {path: ''}}]",
    "no sources": "dataLayer: {injectDefaults: false}",
    "idle": """
        featureGates: [flowControl=false, dataLayer]
        plugins: [{type: utilization-detector, parameters: {queueDepthThreshold: 9}}, {type: models-data-source}]
        flowControl:
          maxBytes: 1.5Gi
          defaultRequestTTL: 1m30s
          saturationDetector: {pluginRef: utilization-detector}
          priorityBands: [{priority: -1, maxRequests: 5}]
        """,
    "parsers": "requestHandler: {parsers: [{pluginRef: words}]}",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_reading_it_again_gives_the_same(text: str) -> None:
    first = made(text)
    again = load(first.resolved.yaml(), catalogue=catalogue())
    assert again.resolved.value == first.resolved.value
    assert again.setup.columns == first.setup.columns


def test_defaults_are_written_out_and_additions_marked() -> None:
    text = made(
        "plugins: [{type: even}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: even}]}]"
    ).resolved.yaml()
    assert "- type: even\n  name: even\n  parameters:\n    share: 0.5\n" in text
    assert "# added: there is one profile and no profile handler\n- type: single-profile-handler\n" in text
    assert (
        "  - pluginRef: even\n    weight: 1.0\n  # added: the profile named no picker\n  - pluginRef: max-score" in text
    )


def test_what_has_no_effect_is_marked_and_kept() -> None:
    text = made(TEXTS["idle"]).resolved.yaml()
    assert "# without effect\n- type: models-data-source\n" in text
    assert "    queueDepthThreshold: 9\n" in text
    assert "# of this, saturationDetector alone has an effect: the gate flowControl is off\nflowControl:\n" in text
    assert '  maxBytes: 1610612736\n  defaultRequestTTL: "90s"\n' in text


def test_retired_gates_are_left_out() -> None:
    assert made(TEXTS["idle"]).resolved.value["featureGates"] == ["flowControl=false"]


TEXT = st.text(max_size=12)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e6, 1e6) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, VALUES, min_size=1, max_size=4))
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    assert read(Resolved(value).yaml()).value == value
