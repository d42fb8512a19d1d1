"""deploy/gateways: every gateway reaches the picker, asks it about every request, and takes no client's word."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import yaml

from epp.headers import CONTROL

from . import schemas
from .documents import Document, Json, at
from .pickers import Picker, pickers
from .sources import ROOT, kustomized, sources

GATEWAYS = ROOT / "deploy" / "gateways"
FOLDERS = ("agentgateway", "envoy-ai-gateway", "envoy-ai-gateway-by-model", "envoy-gateway", "gke", "istio")
ROUTING = [
    "x-gateway-destination-endpoint",
    "x-gateway-destination-endpoint-subset",
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
]
"""What only the picker may say of a request's way."""


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def objects(folder: str) -> list[Document]:
    return kustomized(GATEWAYS / folder)


def only(folder: str, kind: str) -> Json:
    (found,) = (document.value for document in objects(folder) if document.kind == kind)
    return found


def picker(folder: str) -> Picker:
    (found,) = pickers(objects(folder))
    return found


# -- clients' headers


def istio() -> list[str]:
    (patch,) = only("istio", "EnvoyFilter")["spec"]["configPatches"]
    manager = patch["patch"]["value"]["typed_config"]
    return at(manager, "early_header_mutation_extensions[].typed_config.mutations[].remove")


def early(folder: str) -> list[str]:
    return list(only(folder, "ClientTrafficPolicy")["spec"]["headers"]["earlyRequestHeaders"]["remove"])


def agentgateway() -> list[str]:
    return list(only("agentgateway", "AgentgatewayPolicy")["spec"]["traffic"]["transformation"]["request"]["remove"])


def standalone() -> list[str]:
    whole = yaml.safe_load((ROOT / "deploy" / "standalone" / "envoy.yaml").read_text())
    chains = at(whole, "static_resources.listeners[].filter_chains[].filters[].typed_config")
    return [name for chain in chains for name in at(chain, EARLY)]


EARLY = "early_header_mutation_extensions[].typed_config.mutations[].remove"
STRIPPED = {
    "istio": istio,
    "envoy-gateway": lambda: early("envoy-gateway"),
    "envoy-ai-gateway": lambda: early("envoy-ai-gateway"),
    "envoy-ai-gateway-by-model": lambda: early("envoy-ai-gateway-by-model"),
    "agentgateway": agentgateway,
    "standalone": standalone,
}


@pytest.mark.parametrize("gateway", STRIPPED)
def test_a_gateway_takes_every_routing_header_off(gateway: str) -> None:
    assert sorted(STRIPPED[gateway]()) == sorted(ROUTING)


def test_every_routing_header_is_one_the_picker_takes_off_too() -> None:
    assert set(ROUTING) < set(CONTROL)


def test_agentgateway_takes_them_off_before_it_asks_the_picker() -> None:
    assert only("agentgateway", "AgentgatewayPolicy")["spec"]["traffic"]["phase"] == "PreRouting"


def test_gke_refuses_them_by_a_policy_that_the_guide_makes() -> None:
    policy = only("gke", "GCPBackendPolicy")["spec"]["default"]["securityPolicy"]
    made, *rules = gcloud()
    assert made[made.index("create") + 1] == policy
    assert [word_after(rule, "--security-policy") for rule in rules] == [policy] * len(rules)
    assert {word_after(rule, "--action") for rule in rules} == {"deny-403"}
    asked = [re.findall(r"has\(request\.headers\['([a-z-]+)'\]\)", word_after(rule, "--expression")) for rule in rules]
    assert [name for names in asked for name in names] == ROUTING
    assert max(map(len, asked)) <= 5, "Cloud Armor takes no more conditions in a rule"
    assert {word_after(command, "--region") for command in (made, *rules)} == {"REGION"}
    assert word_after(made, "--type") == "CLOUD_ARMOR"


def gcloud() -> list[list[str]]:
    """The commands of the guide, as words."""
    guide = (ROOT / "docs" / "install" / "gateways.md").read_text().partition("## GKE")[2]
    block = guide.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    return [shlex.split(line) for line in block.splitlines() if line.startswith("gcloud")]


def word_after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_no_route_changes_headers(folder: str) -> None:
    """Envoy would do that after the picker's answer and before it looks for the destination (e2e tests show it)."""
    routes = [document.value for document in objects(folder) if document.kind.endswith("Route")]
    assert routes
    assert [found for route in routes for found in at(route, "spec.rules[].filters[]")] == []


# -- the picker


def test_without_the_picker_a_request_fails(folder: str) -> None:
    assert only(folder, "InferencePool")["spec"]["endpointPickerRef"]["failureMode"] == "FailClose"
    assert [o.value["spec"]["extProc"][0]["failOpen"] for o in objects(folder) if o.kind == "EnvoyExtensionPolicy"] in (
        [],
        [False],
    )


def test_the_picker_speaks_what_the_gateway_dials(folder: str) -> None:
    assert picker(folder).options.secure_serving == (folder != "agentgateway")


def test_istio_dials_tls_without_verifying() -> None:
    rule = only("istio", "DestinationRule")["spec"]
    assert rule["host"] == "endpoint-picker.llm.svc.cluster.local"
    assert rule["trafficPolicy"]["tls"] == {"mode": "SIMPLE", "insecureSkipVerify": True}


def test_envoy_gateway_dials_tls_without_verifying() -> None:
    backend = only("envoy-gateway", "Backend")["spec"]
    assert backend["endpoints"] == [{"fqdn": {"hostname": "endpoint-picker.llm.svc.cluster.local", "port": 9002}}]
    assert backend["tls"] == {"insecureSkipVerify": True}


def test_envoy_gateway_lists_as_members_what_the_pool_lists() -> None:
    pool = only("envoy-gateway", "InferencePool")["spec"]
    services = [document.value for document in objects("envoy-gateway") if document.kind == "Service"]
    (members,) = (service["spec"] for service in services if service["spec"].get("clusterIP") == "None")
    assert members["selector"] == pool["selector"]["matchLabels"]
    assert at(members, "ports[].targetPort") == at(pool, "targetPorts[].number")


def test_envoy_gateway_finds_the_destination_in_the_pickers_header() -> None:
    override = only("envoy-gateway", "BackendTrafficPolicy")["spec"]["loadBalancer"]["endpointOverride"]
    assert override == {"extractFrom": [{"header": ROUTING[0]}]}


def test_a_pod_has_time_to_drain(folder: str) -> None:
    found = picker(folder)
    (stop,) = at(found.container, "lifecycle.preStop.exec.command")
    assert found.pod["terminationGracePeriodSeconds"] > int(stop[1]) + found.options.drain_timeout + 5


# -- the schemas

FREE = {"labels", "annotations", "metadata", "value", "matchLabels", "data", "options", "inline", "limits", "requests"}
"""Keys under which any name may stand: maps, and what is Envoy's."""


KINDS = (
    *("AgentgatewayPolicy", "AIGatewayRoute", "Backend", "BackendTrafficPolicy", "Certificate", "ClientTrafficPolicy"),
    *("DestinationRule", "EnvoyExtensionPolicy", "EnvoyFilter", "GCPBackendPolicy", "Gateway", "GatewayClass"),
    *("HTTPRoute", "HealthCheckPolicy", "InferencePool", "Issuer", "LeaderWorkerSet", "LLMInferenceService"),
    *("LLMInferenceServiceConfig", "ServiceMonitor"),
)
"""Those in deploy/gateways and deploy/kserve whose schemas are ours."""


def of_kind(kind: str) -> list[Document]:
    found = [source for source in sources() if source.name.startswith(("deploy/gateways/", "deploy/kserve/"))]
    return [document for source in found for document in source.objects if document.kind == kind]


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the mappings inside in which only known names may stand."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            if key not in FREE:
                yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*path, number))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_field_is_found_wherever_it_stands(kind: str) -> None:
    documents = of_kind(kind)
    assert documents
    assert [(str(one), path) for one in documents for path in places(one.value["spec"]) if not noticed(one, path)] == []


def noticed(document: Document, path: tuple[Any, ...]) -> bool:
    """Is it an error to add a field at `path` of the spec?"""
    wrong = deepcopy(document.value)
    inner = wrong["spec"]
    for step in path:
        inner = inner[step]
    inner["misspelt"] = True
    return any("misspelt" in problem for problem in schemas.problems(Document("wrong", wrong)))


def test_fail_open_in_full_duplex_is_refused_as_envoy_gateway_refuses_it() -> None:
    policy = deepcopy(only("envoy-gateway", "EnvoyExtensionPolicy"))
    policy["spec"]["extProc"][0]["failOpen"] = True
    (problem,) = schemas.problems(Document("open", policy))
    assert "failOpen" in problem
