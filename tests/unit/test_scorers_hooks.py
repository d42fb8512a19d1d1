from __future__ import annotations

from typing import Any

import pytest

from epp import Outcome, Usage
from epp.settings import PluginError
from epp.testing import request
from scorers.agent import AgentIdentity
from scorers.conformance import DestinationEndpointServedVerifier, split_host_port
from scorers.reporter import RequestAttributeReporter
from tests.scorer_kit import build, decided, table

USAGE = Usage(prompt_tokens=100, completion_tokens=20, total_tokens=120)


@pytest.mark.parametrize(
    ("headers", "agent"),
    [
        ({"x-claude-code-session-id": "c", "session-id": "s"}, "c"),
        ({"x-session-affinity": " ", "session-id": "s"}, "s"),
        ({"session_id": "u"}, "u"),
        ({"x-mine": "m", "x-claude-code-session-id": "c"}, "m"),
    ],
    ids=["first", "blank", "underscore", "additional"],
)
def test_an_agent_is_the_first_session_header_with_a_value(headers: dict[str, str], agent: str) -> None:
    hook = build(AgentIdentity, additionalSessionHeaders=["X-Mine"])
    assert hook.arrived(request(headers=headers)) == {"agent-identity": agent}


def test_a_request_without_session_headers_has_no_agent() -> None:
    assert AgentIdentity().arrived(request()) is None


def reported(usage: Usage | None, **attribute: Any) -> object:
    reporter = build(RequestAttributeReporter, attributes=[{"key": {"name": "cost"}, **attribute}])
    asked = request()
    outcome = Outcome(usage=usage, status=200, cause="natural", ttft_s=0.1, duration_s=1.0)
    return reporter.finished(asked, decided(asked, table("a"), {"default": "a"}), outcome)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("usage.total_tokens", 120),
        ("usage.prompt_tokens * 0.125", 12),
        ("usage.prompt_tokens - 2.0 * usage.completion_tokens", 60),
        ("has(usage.prompt_tokens_details) ? 1.0 : 2.0", 2),
    ],
)
def test_a_number_is_computed_from_usage_and_cut_to_an_integer(expression: str, value: float) -> None:
    assert reported(USAGE, expression=expression) == {"envoy.lb": {"cost": value}}


def test_cached_tokens_are_there_if_the_engine_told() -> None:
    expression = "usage.prompt_tokens_details.cached_tokens"
    told = Usage(prompt_tokens=100, cached_tokens=64)
    assert reported(told, expression=expression) == {"envoy.lb": {"cost": 64}}


@pytest.mark.parametrize(
    ("usage", "attribute"),
    [
        (None, {"expression": "usage.total_tokens"}),
        (USAGE, {"expression": "usage.total_tokens", "condition": "usage.completion_tokens > 1000.0"}),
        (USAGE, {"expression": "usage.completion_tokens / 1000.0"}),
    ],
    ids=["no-usage", "condition", "zero"],
)
def test_nothing_is_reported_without_a_number(usage: Usage | None, attribute: dict[str, str]) -> None:
    assert reported(usage, **attribute) is None


def test_a_namespace_may_be_named() -> None:
    key = {"name": "cost", "namespace": "billing"}
    assert reported(USAGE, key=key, expression="usage.total_tokens") == {"billing": {"cost": 120}}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ([], "attributes"),
        ([{"key": {"name": "a"}, "expression": "1"}] * 2, "attributes"),
        ([{"key": {"name": ""}, "expression": "1"}], "name"),
        ([{"key": {"name": "a"}, "expression": ""}], "expression"),
        ([{"key": {"name": "a"}, "expression": "usage."}], "usage"),
        ([{"key": {"name": "a"}, "expression": "usage.nothing"}], "nothing"),
        ([{"key": {"name": "a"}, "expression": "price"}], "price"),
        ([{"key": {"name": "a"}, "expression": "true"}], "a number"),
        ([{"key": {"name": "a"}, "expression": "1", "condition": "1"}], "true or false"),
    ],
    ids=[
        "none",
        "two",
        "no-name",
        "no-expression",
        "syntax",
        "no-such-field",
        "no-such-name",
        "not-a-number",
        "not-a-bool",
    ],
)
def test_attributes_that_cannot_work_are_refused_at_start(attributes: list[Any], said: str) -> None:
    with pytest.raises((PluginError, ValueError), match=said):
        build(RequestAttributeReporter, attributes=attributes)


@pytest.mark.parametrize(
    ("metadata", "value"),
    [
        ({"envoy.lb": {"x-gateway-destination-endpoint-served": "10.0.0.1:8000"}}, "10.0.0.1:8000"),
        ({"envoy.lb": {"other": "x"}}, "fail: missing destination endpoint served metadata"),
        ({}, "fail: missing envoy lb metadata"),
    ],
    ids=["served", "no-key", "no-namespace"],
)
def test_the_endpoint_that_served_is_told_to_the_client(metadata: dict[str, Any], value: str) -> None:
    asked = request()
    decision = decided(asked, table("a"), {"default": "a"})
    told = DestinationEndpointServedVerifier().response_headers(asked, decision, {}, metadata)
    assert told == {"x-conformance-test-served-endpoint": value}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("10.0.0.1", ("10.0.0.1", "")),
        ("10.0.0.1:80", ("10.0.0.1", "80")),
        ("fd00::1", ("fd00::1", "")),
        ("[fd00::1]", ("fd00::1", "")),
        ("[fd00::1]:80", ("fd00::1", "80")),
        ("", ("", "")),
    ],
)
def test_a_host_and_a_port_are_told_apart(text: str, parts: tuple[str, str]) -> None:
    assert split_host_port(text) == parts
