"""Envoy's configuration is one: everywhere it is deploy/standalone/envoy.yaml but for where the picker is."""

from __future__ import annotations

from copy import deepcopy

import pytest
import yaml

from .chart_kit import Release
from .documents import Json
from .sources import DEPLOY

STANDALONE = DEPLOY / "standalone" / "envoy.yaml"
PROXY = {"enabled": True}
PICKERS = {
    "standalone/service/envoy.yaml": "endpoint-picker.llm.svc.cluster.local",
    "compose/envoy.yaml": "picker",
}
"""File → name under which the picker is found there."""


def original() -> Json:
    return yaml.safe_load(STANDALONE.read_text())


def of_chart(**router: Json) -> Json:
    text = Release(**router).one("ConfigMap", "qwen-epp-proxy")["data"]["envoy.yaml"]
    return yaml.safe_load(text)


def cluster(config: Json, name: str) -> Json:
    [found] = [one for one in config["static_resources"]["clusters"] if one["name"] == name]
    return found


def found_by_name(config: Json, name: str) -> Json:
    """`config` with its picker looked up as `name`."""
    changed = deepcopy(config)
    picker = cluster(changed, "picker")
    picker |= {"type": "STRICT_DNS", "dns_refresh_rate": "2s"}
    [locality] = picker["load_assignment"]["endpoints"]
    locality["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] = name
    return changed


def test_the_sidecar_has_the_very_file() -> None:
    assert (DEPLOY / "standalone" / "sidecar" / "envoy.yaml").read_bytes() == STANDALONE.read_bytes()


@pytest.mark.parametrize("file", PICKERS)
def test_where_the_picker_is_elsewhere_only_its_address_differs(file: str) -> None:
    assert yaml.safe_load((DEPLOY / file).read_text()) == found_by_name(original(), PICKERS[file])


def test_the_chart_has_the_same_beside_the_picker() -> None:
    assert of_chart(proxy=PROXY) == original()


def test_the_chart_has_the_same_in_pods_of_its_own() -> None:
    name = "qwen-epp-pods.llm.svc.cluster.local"
    assert of_chart(proxy=PROXY | {"mode": "service"}) == found_by_name(original(), name)


def test_a_picker_without_tls_is_dialled_without() -> None:
    picker = cluster(of_chart(proxy=PROXY, epp={"flags": {"secure-serving": False}}), "picker")
    assert "transport_socket" not in picker
    assert "tls_options" not in picker["health_checks"][0]


def test_model_servers_that_speak_grpc_are_dialled_with_http2() -> None:
    endpoints = cluster(of_chart(proxy=PROXY, modelServers={"protocol": "grpc"}), "endpoints")
    [options] = endpoints["typed_extension_protocol_options"].values()
    assert "http2_protocol_options" in options["explicit_http_config"]


def test_failing_open_has_every_port_of_the_model_servers_to_go_to() -> None:
    ports = [{"number": 8000}, {"number": 8001}]
    endpoints = cluster(of_chart(proxy=PROXY | {"failOpen": True}, modelServers={"targetPorts": ports}), "endpoints")
    [locality] = endpoints["load_assignment"]["endpoints"]
    addresses = [one["endpoint"]["address"]["socket_address"] for one in locality["lb_endpoints"]]
    assert [one["port_value"] for one in addresses] == [8000, 8001]
    assert {one["address"] for one in addresses} == {"qwen-epp-endpoints.llm.svc.cluster.local"}
