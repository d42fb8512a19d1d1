"""The endpoints file as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds import FeedError
from epp.feeds.entries import MAX_FILE_BYTES, Load, Loaded, read_endpoints
from epp.types import Endpoint

FULL = """
endpoints:
- name: a
  namespace: prod
  address: 10.0.0.1
  port: "8000"
  labels: {llm-d.ai/role: decode}
  metricsHost: 10.0.0.1:9000
  unknown: {anything: [1]}
- {name: b, address: 10.0.0.2, port: 8001}
"""


def one(**fields: Any) -> Loaded:  # one entry, as some file might have it
    return read_endpoints(json.dumps({"endpoints": [{"name": "a", "address": "10.0.0.1", "port": 8000} | fields]}))


def test_an_entry_becomes_an_endpoint() -> None:
    loaded = read_endpoints(FULL)
    assert loaded.endpoints == (
        Endpoint("a", "10.0.0.1", 8000, "prod", {"llm-d.ai/role": "decode"}, "10.0.0.1:9000"),
        Endpoint("b", "10.0.0.2", 8001),
    )
    assert loaded.errors == loaded.warnings == ()


def test_json_and_yaml_mean_the_same() -> None:
    assert read_endpoints(json.dumps(yaml.safe_load(FULL))) == read_endpoints(FULL.encode())


def test_a_list_without_entries_is_a_pool_without_endpoints() -> None:
    assert read_endpoints("endpoints: []") == Loaded()


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("FD00::0:1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("gpu-1", "gpu-1"),
        ("gpu-1.example.com", "gpu-1.example.com"),
    ],
)
def test_addresses_of_every_kind_are_taken(address: str, read: str) -> None:
    assert one(address=address).endpoints[0].address == read


def test_only_host_names_need_resolving() -> None:
    text = "endpoints: [{name: a, address: gpu, port: 1}, {name: b, address: '::1', port: 1}]"
    assert read_endpoints(text).host_names == {"gpu"}


@pytest.mark.parametrize(
    ("key", "host", "read"),
    [
        ("metricsHost", "10.0.0.9:9000", "10.0.0.9:9000"),
        ("metricsAddress", "10.0.0.9", "10.0.0.9:8000"),
        ("metricsHost", "[fd00::1]:9000", "[fd00::1]:9000"),
        ("metricsHost", "fd00::1", "[fd00::1]:8000"),
        ("metricsHost", "[fd00::1]", "[fd00::1]:8000"),
        ("metricsAddress", "metrics.example:9000", "metrics.example:9000"),
    ],
)
def test_metrics_may_be_elsewhere(key: str, host: str, read: str) -> None:
    assert one(**{key: host}).endpoints[0].metrics_address == read


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        pytest.param({"port": 0}, "port 0 is none; give the port the engine listens on, 1 … 65535", id="port 0"),
        pytest.param({"port": 65536}, "port 65536 is none", id="port too high"),
        pytest.param({"port": "80a"}, "port '80a' is none", id="no number"),
        pytest.param({"port": "-1"}, "port '-1' is none", id="negative"),
        pytest.param({"port": ""}, "port '' is none", id="empty port"),
        pytest.param({"port": "9" * 5000}, "is none", id="absurd port"),
        pytest.param({"port": True}, "Expected `int | str`, got `bool`", id="boolean port"),
        pytest.param({"address": "10.0.0.256"}, "address '10.0.0.256' is neither an IPv4 nor", id="no address"),
        pytest.param({"address": "10.0.0.1:80"}, "address '10.0.0.1:80' is neither", id="address with port"),
        pytest.param({"address": "fe80::1%eth0"}, "is neither", id="zone"),
        pytest.param({"address": "[10.0.0.1]"}, "is neither", id="bracketed IPv4"),
        pytest.param({"address": ""}, "address '' is neither", id="empty address"),
        pytest.param({"name": ""}, "name and namespace must not be empty", id="empty name"),
        pytest.param({"name": 5}, "Expected `str`, got `int` - at `$.name`; put it in quotes", id="name is a number"),
        pytest.param({"labels": {"a": 1}}, "Expected `str`, got `int` - at `$.labels[...]`; put it", id="label"),
        pytest.param({"labels": ["a"]}, "got `array` - at `$.labels`", id="labels are a list"),
        pytest.param({"metricsHost": "h:0"}, "port '0' is none", id="metrics port"),
        pytest.param({"metricsHost": "h", "metricsAddress": "h"}, "mean the same; give one", id="both metrics keys"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_left_out_by_name(fields: dict[str, Any], rule: str) -> None:
    loaded = one(**fields)
    assert loaded.endpoints == ()
    assert rule in str(loaded.errors[0])
    assert str(loaded.errors[0]).startswith("endpoints[0]")


def test_the_others_are_used_and_the_broken_one_is_named() -> None:
    loaded = read_endpoints("endpoints: [{name: a, port: 1}, 5, {name: c, address: 10.0.0.3, port: 3}]")
    assert [endpoint.name for endpoint in loaded.endpoints] == ["c"]
    assert [problem.key for problem in loaded.errors] == ["default/a", ""]
    assert str(loaded.errors[0]) == "endpoints[0] (a): Object missing required field `address`"


def test_of_two_entries_with_one_identity_the_last_counts() -> None:
    text = (
        "endpoints: [{name: a, address: 10.0.0.1, port: 1, load: {waiting: 1}}, {name: a, address: 10.0.0.2, port: 2}]"
    )
    loaded = read_endpoints(text)
    assert loaded.endpoints == (Endpoint("a", "10.0.0.2", 2),)
    assert loaded.loads == {}
    assert [str(warning) for warning in loaded.warnings] == [
        "endpoints[1] (a): default/a is there twice; the last entry counts"
    ]


def test_one_name_in_two_namespaces_is_two_endpoints() -> None:
    text = "endpoints: [{name: a, address: 10.0.0.1, port: 1}, {name: a, namespace: n, address: 10.0.0.1, port: 1}]"
    assert [endpoint.key for endpoint in read_endpoints(text).endpoints] == ["default/a", "n/a"]


def test_a_load_is_read_beside_the_endpoint() -> None:
    load = {"waiting": 3, "running": 8, "kv_usage": 0.5, "inflight": 2, "loras": ["sql"]}
    assert one(load=load).loads == {"default/a": Load(3, 8, 0.5, 2, ("sql",))}


@pytest.mark.parametrize("load", [{"kv_usage": 2}, {"waiting": -1}, {"queue": 1}, 5])
def test_a_load_that_cannot_be_used_does_not_cost_the_endpoint(load: object) -> None:
    loaded = one(load=load)
    assert len(loaded.endpoints) == 1
    assert loaded.errors == ()
    assert str(loaded.load_errors[0]).startswith("endpoints[0] (a).load: ")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param("", "the file is empty", id="empty"),
        pytest.param(" \n", "the file is empty", id="blank"),
        pytest.param("# none yet\n", "there is no list named endpoints", id="comments only"),
        pytest.param("endpoints:\n", "there is no list named endpoints", id="half written"),
        pytest.param("endpoints: {a: 1}", "there is no list named endpoints", id="no list"),
        pytest.param("- name: a", "there is no list named endpoints", id="list at the top"),
        pytest.param('{"endpoints": [{"name"', "not YAML", id="cut JSON"),
        pytest.param("endpoints:\n- name: [\n", "line 3: not YAML", id="cut YAML"),
        pytest.param("endpoints: [" + "[" * 5000, "not YAML", id="deep"),
        pytest.param("[" * 100_000, "not YAML", id="deep JSON"),
        pytest.param("endpoints: [!!bool maybe]", "not YAML", id="no bool"),
        pytest.param("endpoints: [!!int '']", "not YAML", id="no number"),
        pytest.param("endpoints: [!!timestamp soon]", "not YAML", id="no date"),
        pytest.param("endpoints: !!python/object:os.system {}", "not YAML", id="objects"),
        pytest.param(b"\xff\xfe\x00", "not YAML", id="no text"),
        pytest.param(" " * (MAX_FILE_BYTES + 1), "more than 1048576 bytes", id="too large"),
    ],
)
def test_what_is_no_endpoints_file_is_refused(text: str | bytes, rule: str) -> None:
    with pytest.raises(FeedError, match=rule):
        read_endpoints(text)


NAMES = st.text("abc", min_size=1, max_size=2)


@given(st.lists(st.tuples(NAMES, NAMES, st.integers(-1, 70000)), max_size=8))
def test_every_entry_is_used_or_named(entries: list[tuple[str, str, int]]) -> None:
    written = [{"name": n, "namespace": ns, "address": "::1", "port": port} for n, ns, port in entries]
    loaded = read_endpoints(json.dumps({"endpoints": written}))
    assert len(loaded.endpoints) + len(loaded.errors) + len(loaded.warnings) == len(entries)
    last = {f"{ns}/{n}": port for n, ns, port in entries if 1 <= port <= 65535}
    assert {endpoint.key: endpoint.port for endpoint in loaded.endpoints} == last
