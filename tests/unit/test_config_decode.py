"""From plain values to typed records: what is accepted and how errors name their path and the choices."""

from __future__ import annotations

import pytest

from epp.config.decode import decode
from epp.config.errors import ConfigError
from epp.config.schema import Config
from epp.config.yaml import read


def decoded(text: str) -> Config:
    return decode(read(text).value)


REFUSED = {
    "plugin: []": "plugin: unknown key; did you mean plugins? have: apiVersion, dataLayer,",
    "plugins: [{typ: a}]": "plugins[0].typ: unknown key; did you mean type? have: name, parameters, type",
    "plugins: [{Type: a}]": "plugins[0].Type: unknown key; did you mean type?",
    "plugins: {}": "plugins: expected a list, got a mapping",
    "plugins: [a]": "plugins[0]: expected a mapping, got text",
    "plugins: [{type: 1}]": "plugins[0].type: expected text, got a whole number",
    "plugins: [{type: a, parameters: [1]}]": "plugins[0].parameters: expected a mapping, got a list",
    "schedulingProfiles: [{plugins: [{weight: 1}]}]": "plugins[0]: required key missing: pluginRef",
    "schedulingProfiles: [{plugins: [{pluginRef: a, weight: '2'}]}]": "plugins[0].weight: expected a number, got text",
    "dataLayer: {injectDefaults: 1}": "dataLayer.injectDefaults: expected true or false, got a whole number",
    "dataLayer: {sources: [{pluginRef: a, extractors: [{ref: b}]}]}": "sources[0].extractors[0].ref: unknown key",
    "flowControl: {maxBytes: -1}": "flowControl.maxBytes: expected a quantity, 0 or more, such as 1Gi or 5000, got -1",
    "flowControl: {maxBytes: 1 GB}": "flowControl.maxBytes: expected a quantity",
    "flowControl: {maxBytes: true}": "flowControl.maxBytes: expected a quantity",
    "flowControl: {defaultRequestTTL: 60}": "flowControl.defaultRequestTTL: expected a duration such as 60s or 1m30s",
    "flowControl: {priorityBands: [{priority: high}]}": "priorityBands[0].priority: expected a whole number",
    "flowControl: {noEndpointRequestTtl: 1s}": "did you mean noEndpointRequestTTL?",
    "[]": "an EndpointPickerConfig is a mapping, not list",
}


@pytest.mark.parametrize(("text", "told"), REFUSED.items(), ids=list(REFUSED))
def test_an_error_names_the_path_and_the_choices(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        decoded(text)
    assert told in str(raised.value)


AMOUNTS = {"1Gi": 1 << 30, "1.5G": 1_500_000_000, "500k": 500_000, "1000000000": 10**9, "1e3": 1000, "'5000'": 5000}


@pytest.mark.parametrize(("text", "amount"), AMOUNTS.items(), ids=list(AMOUNTS))
def test_quantities_are_those_of_kubernetes(text: str, amount: int) -> None:
    flow = decoded(f"flowControl: {{maxBytes: {text}}}").flow_control
    assert flow is not None
    assert flow.max_bytes == amount


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60.0), ("1m30s", 90.0), ("200ms", 0.2), ('"0"', 0.0)])
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    flow = decoded(f"flowControl: {{defaultRequestTTL: {text}}}").flow_control
    assert flow is not None
    assert flow.default_request_ttl == pytest.approx(seconds)


def test_a_key_without_a_value_is_absent() -> None:
    assert decoded("plugins:\ndataLayer: {sources: null}\nflowControl: ~") == Config()


def test_a_weight_may_be_whole_broken_or_negative() -> None:
    members = decoded("schedulingProfiles: [{plugins: [{pluginRef: a, weight: 2}, {pluginRef: b, weight: -0.5}]}]")
    assert [member.weight for member in members.scheduling_profiles[0].plugins] == [2.0, -0.5]


def test_parameters_are_left_as_they_are() -> None:
    entry = decoded("plugins: [{type: a, parameters: {someKey: null, other: {deep: [1]}}}]").plugins[0]
    assert entry.parameters == {"someKey": None, "other": {"deep": [1]}}
