"""The section flowControl and its gate: what comes of it, and what is refused."""

from __future__ import annotations

import pytest

from epp.config import ConfigError
from tests.config_kit import made

GATE = "featureGates: [flowControl]\n"


def test_with_the_gate_alone_everything_has_its_default() -> None:
    built = made(GATE)
    rules = built.flow
    assert rules is not None
    assert (rules.ttl_s, rules.empty_ttl_s, rules.max_bytes, rules.max_requests, rules.evict) == (60, 60, 0, 0, False)
    band = rules.band(7)
    assert (band.priority, band.max_bytes, band.max_requests) == (7, 1_000_000_000, 5000)
    assert band.fairness.type.type == "global-strict-fairness-policy"
    assert band.ordering.type.type == "fcfs-ordering-policy"
    assert rules.usage_limit.type.type == "static-usage-limit-policy"
    assert built.detector is not None
    assert built.detector.name == "ledger-detector"
    assert list(built.warnings) == []


def test_without_the_gate_there_is_a_detector_and_no_queue() -> None:
    built = made("")
    assert built.flow is None
    assert built.detector is not None


def test_every_setting_arrives() -> None:
    rules = made(
        GATE
        + """
        plugins:
        - {type: round-robin-fairness-policy, name: turns}
        - {type: edf-ordering-policy}
        - {type: concurrency-detector, name: few, parameters: {maxConcurrency: 3}}
        - {type: priority-holdback-policy, parameters: {minCeiling: 0.5}}
        flowControl:
          maxBytes: 1Gi
          maxRequests: 10k
          defaultRequestTTL: 5s
          defaultPriorityBand: {maxRequests: 7, fairnessPolicyRef: turns, orderingPolicyRef: edf-ordering-policy}
          defaultNegativePriorityBand: {maxBytes: 1M}
          priorityBands: [{priority: 9, maxRequests: 3}]
          usageLimitPolicyPluginRef: priority-holdback-policy
          saturationDetector: {pluginRef: few}
          enableEviction: true
        """.replace("\n        ", "\n"),
        experimental=True,
    ).flow
    assert rules is not None
    assert (rules.max_bytes, rules.max_requests, rules.ttl_s, rules.empty_ttl_s) == (2**30, 10_000, 5, 5)
    assert (rules.band(1).max_requests, rules.band(1).fairness.name) == (7, "turns")
    assert rules.band(1).ordering.name == "edf-ordering-policy"
    assert (rules.band(-3).max_bytes, rules.band(-3).max_requests) == (1_000_000, 5000)
    assert rules.band(9).max_requests == 3
    assert rules.usage_limit.name == "priority-holdback-policy"
    assert rules.evict
    assert rules.evict_grace_s == 0.01


def test_zero_is_for_ever_and_negative_priorities_fall_back() -> None:
    text = "flowControl: {defaultRequestTTL: 0s, noEndpointRequestTTL: 9s, defaultPriorityBand: {maxRequests: 2}}"
    rules = made(GATE + text).flow
    assert rules is not None
    assert (rules.ttl_s, rules.empty_ttl_s, rules.band(-1).max_requests) == (0, 9, 2)


@pytest.mark.parametrize("name", ["utilization-detector", "concurrency-detector", "ledger-detector"])
def test_a_detector_needs_no_entry(name: str) -> None:
    built = made(f"flowControl: {{saturationDetector: {{pluginRef: {name}}}}}")
    assert built.detector is not None
    assert built.detector.name == name
    assert list(built.warnings) == []


def test_the_section_without_the_gate_is_told_of() -> None:
    (warning,) = made("flowControl: {maxRequests: 5}").warnings
    assert warning.startswith("flowControl: has no effect, as the feature gate flowControl is off; add flowControl to")


BAD = {
    "nobody": ("flowControl: {saturationDetector: {pluginRef: d}}", "no plug-in is named 'd'"),
    "no detector": (
        "plugins: [{type: even}]\nflowControl: {saturationDetector: {pluginRef: even}}",
        "flowControl.saturationDetector.pluginRef (line 5): 'even' is of type even, which detects no saturation",
    ),
    "no fairness": (
        "plugins: [{type: even}]\nflowControl: {defaultPriorityBand: {fairnessPolicyRef: even}}",
        "flowControl.defaultPriorityBand.fairnessPolicyRef (line 5): 'even' is of type even, which is no fairness",
    ),
    "no order": (
        "plugins: [{type: even}]\nflowControl: {priorityBands: [{priority: 1, orderingPolicyRef: even}]}",
        "flowControl.priorityBands[0].orderingPolicyRef (line 5): 'even' is of type even, which is no ordering policy",
    ),
    "no limit": (
        "flowControl: {usageLimitPolicyPluginRef: fcfs}",
        "no plug-in is named 'fcfs'",
    ),
    "twice": (
        "flowControl: {priorityBands: [{priority: 1}, {priority: 0}, {priority: 1}]}",
        "flowControl.priorityBands[2].priority (line 4): 1 is the priority of priorityBands[0] too; merge the two",
    ),
    "a wrong word": (
        "plugins: [{type: concurrency-detector, parameters: {concurrencyMode: tokns}}]",
        "concurrency-detector: expected one of requests, tokens, hybrid (got 'tokns')",
    ),
    "negative": ("flowControl: {maxRequests: -1}", "flowControl.maxRequests (line 4): expected a quantity, 0 or more"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=list(BAD))
def test_what_cannot_be_is_refused_with_path_and_remedy(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(GATE + text)
    assert told in str(raised.value)
