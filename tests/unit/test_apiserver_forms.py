"""The API server in tests: discovery, tables, OpenAPI and protobuf, as kubectl asks for them."""

from __future__ import annotations

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import PODS, Client, config_map, pod, served
from tests.apiserver.protobuf import decode

TABLE = (
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json"
)
POOLS = "inferencepools.inference.networking.k8s.io"


@served(crds=[POOLS])
async def test_discovery_lists_groups_versions_and_resources(server: ApiServer, client: Client) -> None:
    assert (await client.get("/api")).json["versions"] == ["v1"]
    groups = {group["name"]: group["preferredVersion"] for group in (await client.get("/apis")).json["groups"]}
    group = "inference.networking.k8s.io"
    assert groups[group] == {"groupVersion": f"{group}/v1", "version": "v1"}
    listed = (await client.get(f"/apis/{group}/v1")).json
    assert (listed["kind"], listed["groupVersion"]) == ("APIResourceList", f"{group}/v1")
    assert [entry["name"] for entry in listed["resources"]] == ["inferencepools", "inferencepools/status"]
    assert listed["resources"][0]["shortNames"] == ["infpool"]


@served(crds=[POOLS])
async def test_aggregated_discovery_says_the_same_in_one_answer(server: ApiServer, client: Client) -> None:
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    answer = await client.ask("GET", "/apis", headers={"Accept": f"{accept},application/json"})
    assert answer.headers["Content-Type"] == accept
    found = {
        (item["metadata"]["name"], version["version"], each["resource"])
        for item in answer.json["items"]
        for version in item["versions"]
        for each in version["resources"]
    }
    single = set()
    for group in (await client.get("/apis")).json["groups"]:
        entries = (await client.get(f"/apis/{group['name']}/v1")).json["resources"]
        single |= {(group["name"], "v1", entry["name"]) for entry in entries if "/" not in entry["name"]}
    assert found == single


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz"])
def test_it_is_healthy(path: str) -> None:
    @served()
    async def ask(server: ApiServer, client: Client) -> None:
        answer = await client.get(path)
        assert (answer.status, answer.body) == (200, b"ok")

    ask()


@served()
async def test_it_tells_its_version(server: ApiServer, client: Client) -> None:
    answer = (await client.get("/version")).json
    assert f"v{answer['major']}.{answer['minor']}.0" == answer["gitVersion"]


@pytest.mark.parametrize(
    "path", ["/nope", "/apis/no.such.group/v1", "/apis/no.such.group/v1/namespaces/a/things", "/api/v2/pods"]
)
def test_a_path_that_nothing_serves_is_plain_text(path: str) -> None:
    @served()
    async def ask(server: ApiServer, client: Client) -> None:
        answer = await client.get(path)
        assert (answer.status, answer.body) == (404, b"404 page not found\n")
        assert answer.headers["Content-Type"].startswith("text/plain")

    ask()


@pytest.mark.parametrize("path", ["/api/v1/things", "/apis/apps/v1/namespaces/a/things", "/api/v1/namespaces/a/nodes"])
def test_a_resource_that_a_group_lacks_is_a_status(path: str) -> None:
    @served()
    async def ask(server: ApiServer, client: Client) -> None:
        says = "the server could not find the requested resource"
        assert (await client.get(path)).failure == (404, "NotFound", says)

    ask()


@served(clock=lambda: 1_750_000_000.0)
async def test_a_table_has_the_columns_that_kubectl_prints(server: ApiServer, client: Client) -> None:
    content = pod("a")
    content["metadata"]["creationTimestamp"] = "2025-06-15T14:00:00Z"
    content["status"]["containerStatuses"] = [{"ready": True, "restartCount": 2}]
    server.create(content)
    table = (await client.ask("GET", PODS, headers={"Accept": TABLE})).json
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert [column["name"] for column in table["columnDefinitions"] if not column["priority"]] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    [row] = table["rows"]
    assert row["cells"] == ["a", "1/1", "Running", "2", "66m", "10.0.0.1", "node-a"]
    assert (row["object"]["kind"], row["object"]["metadata"]["name"]) == ("PartialObjectMetadata", "a")


@served(crds=["inferenceobjectives.llm-d.ai"])
async def test_a_custom_kind_is_printed_with_its_own_columns(server: ApiServer, client: Client) -> None:
    spec = {"priority": 7, "poolRef": {"name": "pool"}}
    content = {"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceObjective", "metadata": {"name": "a"}, "spec": spec}
    server.create(content)
    path = "/apis/llm-d.ai/v1alpha2/inferenceobjectives"
    table = (await client.ask("GET", path, headers={"Accept": TABLE})).json
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Inference Pool", "Priority", "Age"]
    assert table["rows"][0]["cells"][:3] == ["a", "pool", 7]


@served()
async def test_a_watch_of_tables_tells_the_columns_once(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    server.create(pod("b"))
    async with client.watch(PODS, headers={"Accept": TABLE}) as events:
        first, second = [(await events.next())["object"] for _ in range(2)]
    assert ([len(first["columnDefinitions"]), second["columnDefinitions"]]) == [7, None]
    assert [table["rows"][0]["cells"][0] for table in (first, second)] == ["a", "b"]


@served()
async def test_metadata_alone_can_be_asked_for(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    accept = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
    answer = (await client.ask("GET", PODS, headers=accept)).json
    assert (answer["kind"], answer["items"][0].keys()) == (
        "PartialObjectMetadataList",
        {"kind", "apiVersion", "metadata"},
    )


@served()
async def test_who_takes_protobuf_only_gets_nothing(server: ApiServer, client: Client) -> None:
    accept = {"Accept": "application/vnd.kubernetes.protobuf"}
    assert (await client.ask("GET", PODS, headers=accept)).failure[:2] == (406, "NotAcceptable")
    both = {"Accept": "application/vnd.kubernetes.protobuf,application/json"}
    assert (await client.ask("GET", PODS, headers=both)).status == 200


@served(crds=[POOLS])
async def test_openapi_says_which_parameters_a_kind_understands(server: ApiServer, client: Client) -> None:
    index = (await client.get("/openapi/v3")).json["paths"]
    part = index["apis/inference.networking.k8s.io/v1"]["serverRelativeURL"]
    [item] = (await client.get(part)).json["paths"].values()
    assert item["patch"]["x-kubernetes-group-version-kind"]["kind"] == "InferencePool"
    assert "fieldValidation" in {parameter["name"] for parameter in item["patch"]["parameters"]}
    assert (await client.get("/openapi/v2")).json["swagger"] == "2.0"


@served()
async def test_openapi_for_old_clients_is_protobuf(server: ApiServer, client: Client) -> None:
    form = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = await client.ask("GET", "/openapi/v2", headers={"Accept": form})
    assert (answer.headers["Content-Type"], answer.body[:5]) == (form.replace("@", "."), b"\x0a\x032.0")


PROTOBUF = "application/vnd.kubernetes.protobuf"
ALWAYS = b'\x12\x00\x1a\x00"\x00*\x002\x008\x00B\x00'
"""The empty fields of metadata that Go's encoder writes."""
NAMESPACE = (
    b"k8s\x00\n\x0f\n\x02v1\x12\tNamespace\x12\x1b\n\x13\n\x03llm" + ALWAYS + b'\x12\x00\x1a\x02\n\x00\x1a\x00"\x00'
)
"""Recorded from `kubectl create namespace llm`, 1.33 and 1.37 alike."""
REVIEW = (
    b"k8s\x00\n2\n\x17authorization.k8s.io/v1\x12\x17SelfSubjectAccessReview\x129\n\x10\n\x00"
    + ALWAYS
    + b'\x12\x1b\n\x19\n\x03llm\x12\x04list\x1a\x00"\x00*\x04pods2\x00:\x00'
    + b'\x1a\x08\x08\x00\x12\x00\x1a\x00 \x00\x1a\x00"\x00'
)
"""Recorded from `kubectl auth can-i list pods -n llm`."""
CONFIG_MAP = (
    b"k8s\x00\n\x0f\n\x02v1\x12\tConfigMap\x12\x1b\n\x11\n\x01c" + ALWAYS + b'\x12\x06\n\x01a\x12\x01b\x1a\x00"\x00'
)
"""Recorded from `kubectl create configmap c --from-literal=a=b`."""


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "llm"}}),
        (CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}),
        (
            REVIEW,
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "metadata": {},
                "spec": {"resourceAttributes": {"namespace": "llm", "verb": "list", "resource": "pods"}},
            },
        ),
    ],
    ids=["create namespace", "create configmap", "auth can-i"],
)
def test_what_kubectl_sends_as_protobuf_is_read(body: bytes, wanted: dict[str, object]) -> None:
    assert decode(body) == wanted


@served()
async def test_a_namespace_is_created_from_protobuf(server: ApiServer, client: Client) -> None:
    answer = await client.ask("POST", "/api/v1/namespaces", NAMESPACE, form=PROTOBUF)
    assert (answer.status, answer.json["status"]) == (201, {"phase": "Active"})


@served()
async def test_other_protobuf_is_refused_in_clear_words(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    body = b"k8s\x00\n\x09\n\x02v1\x12\x03Pod\x12\x00\x1a\x00\x22\x00"
    answer = await client.ask("POST", PODS, body, form=PROTOBUF)
    says = "this API server for tests reads no kind Pod as protobuf; send application/json"
    assert answer.failure == (415, "UnsupportedMediaType", says)
