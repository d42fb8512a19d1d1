"""The API server in tests: how objects are created, changed and deleted. Rules: Kubernetes API conventions."""

from __future__ import annotations

import re

import pytest

from tests.apiserver import ApiError, ApiServer
from tests.apiserver.client import LEASES, MAPS, PODS, Client, config_map, pod, served

POOLS = "inferencepools.inference.networking.k8s.io"
POOL_PATH = "/apis/inference.networking.k8s.io/v1/namespaces/llm/inferencepools"


def lease(name: str, **spec: object) -> dict[str, object]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}


def pool(**spec: object) -> dict[str, object]:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "pool"},
        "spec": spec,
    }


@served(clock=lambda: 1_750_000_000.0)
async def test_a_created_object_gets_uid_version_and_time(server: ApiServer, client: Client) -> None:
    server.create(config_map("first"))
    answer = await client.ask("POST", MAPS, config_map("second", key="value"))
    metadata = answer.json["metadata"]
    assert (answer.status, answer.json["data"]) == (201, {"key": "value"})
    assert metadata["creationTimestamp"] == "2025-06-15T15:06:40Z"
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", metadata["uid"])
    assert (
        int(metadata["resourceVersion"])
        == int(server.get("ConfigMap", "llm", "first")["metadata"]["resourceVersion"]) + 1
    )


@served()
async def test_one_counter_versions_all_kinds(server: ApiServer, client: Client) -> None:
    versions = [
        int(server.create(each)["metadata"]["resourceVersion"]) for each in (pod("a"), config_map("a"), pod("b"))
    ]
    assert versions[1:] == [versions[0] + 1, versions[0] + 2]


@served()
async def test_a_name_is_taken_once_a_namespace(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    server.create(pod("a", "other"))
    taken = await client.ask("POST", PODS, pod("a"))
    assert taken.failure == (409, "AlreadyExists", 'pods "a" already exists')
    assert taken.json["details"] == {"name": "a", "kind": "pods"}


@served()
async def test_a_generated_name_begins_as_asked(server: ApiServer, client: Client) -> None:
    sent = config_map("")
    sent["metadata"] = {"generateName": "load-"}
    names = {
        (await client.ask("POST", "/api/v1/namespaces/default/configmaps", sent)).json["metadata"]["name"] for _ in "ab"
    }
    assert len(names) == 2
    assert all(re.fullmatch("load-[a-z0-9]{5}", name) for name in names)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "Upper",
            'ConfigMap "Upper" is invalid: metadata.name: Invalid value: "Upper": a lowercase RFC 1123 subdomain',
        ),
        ("", 'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'),
    ],
    ids=["upper case", "none"],
)
def test_a_wrong_name_is_refused(name: str, says: str) -> None:
    @served()
    async def wrong(server: ApiServer, client: Client) -> None:
        code, reason, message = (
            await client.ask("POST", "/api/v1/namespaces/default/configmaps", config_map(name, "default"))
        ).failure
        assert (code, reason, message.startswith(says)) == (422, "Invalid", True)

    wrong()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "Pod"}, "the object provided is unrecognized (must be of type ConfigMap): Pod"),
        (
            {"apiVersion": "v2"},
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            {"metadata": {"name": "a", "namespace": "elsewhere"}},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            {"metadata": {"name": "a", "resourceVersion": "7"}},
            "resourceVersion should not be set on objects to be created",
        ),
    ],
    ids=["kind", "version", "namespace", "resourceVersion"],
)
def test_an_object_that_does_not_fit_its_path_is_refused(change: dict[str, object], says: str) -> None:
    @served()
    async def wrong(server: ApiServer, client: Client) -> None:
        sent = config_map("a", "default") | change
        answer = await client.ask("POST", "/api/v1/namespaces/default/configmaps", sent)
        assert answer.failure == (400, "BadRequest", says)

    wrong()


@served(crds=[POOLS])
async def test_an_object_says_what_it_is_where_its_kind_is_custom(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    metadata = {"metadata": {"name": "a"}}
    assert (await client.ask("POST", MAPS, metadata)).json["kind"] == "ConfigMap"
    assert (await client.ask("POST", POOL_PATH, metadata)).failure == (400, "BadRequest", "Object 'Kind' is missing")


@served()
async def test_a_namespace_must_exist_for_clients_and_is_made_for_tests(server: ApiServer, client: Client) -> None:
    missing = await client.ask("POST", MAPS, config_map("a"))
    assert missing.failure == (404, "NotFound", 'namespaces "llm" not found')
    server.create(pod("a"))
    assert server.get("Namespace", None, "llm")["status"] == {"phase": "Active"}
    assert (await client.ask("POST", MAPS, config_map("a"))).status == 201


@served()
async def test_an_update_from_an_old_version_conflicts(server: ApiServer, client: Client) -> None:
    old = server.create(config_map("a"))
    server.patch("ConfigMap", "llm", "a", {"data": {"key": "theirs"}})
    answer = await client.ask("PUT", f"{MAPS}/a", old | {"data": {"key": "ours"}})
    says = (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    assert answer.failure == (409, "Conflict", says)
    assert server.get("ConfigMap", "llm", "a")["data"] == {"key": "theirs"}


@served()
async def test_an_update_without_a_version_wins_for_built_in_kinds(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    assert (await client.ask("PUT", f"{MAPS}/a", config_map("a", key="new"))).status == 200
    assert server.get("ConfigMap", "llm", "a")["data"] == {"key": "new"}


@served(crds=[POOLS])
async def test_an_update_without_a_version_is_refused_for_custom_kinds(server: ApiServer, client: Client) -> None:
    server.create(pool() | {"metadata": {"name": "pool", "namespace": "llm"}})
    answer = await client.ask("PUT", f"{POOL_PATH}/pool", pool(selector={}))
    assert answer.status == 422
    assert "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in answer.json["message"]


@served()
async def test_an_update_cannot_change_what_the_server_set(server: ApiServer, client: Client) -> None:
    old = server.create(config_map("a"))["metadata"]
    sent = config_map("a", key="new")
    sent["metadata"] |= {"creationTimestamp": "2000-01-01T00:00:00Z", "deletionTimestamp": "2000-01-01T00:00:00Z"}
    metadata = (await client.ask("PUT", f"{MAPS}/a", sent)).json["metadata"]
    assert metadata == old | {"resourceVersion": metadata["resourceVersion"]}
    assert (await client.ask("PUT", f"{MAPS}/a", config_map("b"))).failure[2] == (
        "the name of the object (b) does not match the name on the URL (a)"
    )


@served()
async def test_an_update_that_changes_nothing_is_not_written(server: ApiServer, client: Client) -> None:
    old = server.create(config_map("a", key="value"))
    answer = await client.ask("PUT", f"{MAPS}/a", config_map("a", key="value"))
    assert (answer.status, answer.json) == (200, old)


@served()
async def test_a_lease_is_created_by_put_and_changed_by_who_saw_it_last(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    made = await client.ask("PUT", f"{LEASES}/leader", lease("leader", holderIdentity="a"))
    assert made.status == 201
    blind = await client.ask("PUT", f"{LEASES}/leader", lease("leader", holderIdentity="b"))
    assert blind.failure[:2] == (422, "Invalid")
    seen = await client.ask("PUT", f"{LEASES}/leader", made.json | {"spec": {"holderIdentity": "b"}})
    assert (seen.status, seen.json["spec"]) == (200, {"holderIdentity": "b"})
    late = await client.ask("PUT", f"{LEASES}/leader", made.json | {"spec": {"holderIdentity": "c"}})
    assert late.failure[:2] == (409, "Conflict")


@served(crds=[POOLS])
async def test_generation_counts_changes_of_the_spec_only(server: ApiServer, client: Client) -> None:
    server.create(pool() | {"metadata": {"name": "pool", "namespace": "llm"}})
    steps = [{"spec": {"selector": {}}}, {"metadata": {"labels": {"a": "b"}}}, {"status": {"parents": []}}]
    counted = [server.patch("InferencePool", "llm", "pool", step)["metadata"]["generation"] for step in steps]
    assert counted == [2, 2, 2]


@served(crds=[POOLS])
async def test_status_is_written_through_its_subresource_only(server: ApiServer, client: Client) -> None:
    server.create(pool() | {"metadata": {"name": "pool", "namespace": "llm"}})
    form = "application/merge-patch+json"
    both = {"spec": {"new": True}, "status": {"parents": [1]}}
    main = (await client.ask("PATCH", f"{POOL_PATH}/pool", both, form=form)).json
    status = (await client.ask("PATCH", f"{POOL_PATH}/pool/status", both | {"spec": {"new": False}}, form=form)).json
    assert (main["spec"], main.get("status")) == ({"new": True}, None)
    assert (status["spec"], status["status"]) == ({"new": True}, {"parents": [1]})


@served()
async def test_a_client_cannot_create_a_pod_that_runs_already(server: ApiServer, client: Client) -> None:
    answer = await client.ask("POST", "/api/v1/namespaces/default/pods", pod("a", "default"))
    assert answer.json["status"] == {"phase": "Pending"}


@served()
async def test_kinds_without_a_status_subresource_have_no_such_path(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    answer = await client.get(f"{MAPS}/a/status")
    assert answer.failure == (404, "NotFound", "the server could not find the requested resource")


@served()
async def test_a_dry_run_changes_nothing(server: ApiServer, client: Client) -> None:
    server.create(config_map("a", key="old"))
    made = await client.ask("POST", f"{MAPS}?dryRun=All", config_map("b"))
    changed = await client.ask("PUT", f"{MAPS}/a?dryRun=All", config_map("a", key="new"))
    await client.ask("DELETE", f"{MAPS}/a?dryRun=All")
    assert (made.status, changed.json["data"]) == (201, {"key": "new"})
    assert [each["data"] for each in server.all("ConfigMap")] == [{"key": "old"}]


@served()
async def test_yaml_is_taken_and_other_forms_are_refused(server: ApiServer, client: Client) -> None:
    text = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: value}\n"
    path = "/api/v1/namespaces/default/configmaps"
    assert (await client.ask("POST", path, text, form="application/yaml")).json["data"] == {"key": "value"}
    assert (await client.ask("POST", path, text, form="text/plain")).failure[:2] == (415, "UnsupportedMediaType")
    assert (await client.ask("POST", path, b"{", form="application/json")).failure[:2] == (400, "BadRequest")


@served()
async def test_labels_are_text_of_a_certain_form(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    sent = config_map("b")
    sent["metadata"]["labels"] = {"number": 7}
    assert (await client.ask("POST", MAPS, sent)).failure[:2] == (400, "BadRequest")
    sent["metadata"]["labels"] = {"text": "-no-"}
    assert (await client.ask("POST", MAPS, sent)).failure[:2] == (422, "Invalid")


@served(crds=["inferenceobjectives.llm-d.ai", "inferenceobjectives.inference.networking.x-k8s.io"])
async def test_a_kind_of_two_groups_is_named_with_its_group(server: ApiServer, client: Client) -> None:
    with pytest.raises(LookupError, match=r"several kinds 'InferenceObjective'; have: inferenceobjectives.llm-d.ai, "):
        server.all("InferenceObjective")
    assert server.all("InferenceObjective.llm-d.ai") == []


@served()
async def test_what_tests_read_and_write_is_not_shared_with_the_store(server: ApiServer, client: Client) -> None:
    sent = config_map("a", key="sent")
    server.create(sent)["data"]["key"] = "answered"
    sent["data"]["key"] = "changed"
    server.get("ConfigMap", "llm", "a")["data"]["key"] = "read"
    assert server.get("ConfigMap", "llm", "a")["data"] == {"key": "sent"}
    with pytest.raises(ApiError, match='configmaps "b" not found'):
        server.get("ConfigMap", "llm", "b")


@served(crds=[POOLS])
async def test_a_custom_kind_comes_and_goes_with_its_definition(server: ApiServer, client: Client) -> None:
    definition = server.get("CustomResourceDefinition", None, POOLS)
    server.create(pool() | {"metadata": {"name": "pool", "namespace": "llm"}})
    async with client.watch(POOL_PATH, resourceVersion="0") as events:
        assert await events.told(1) == [("ADDED", "pool")]
        server.uninstall(POOLS)
        assert [event["type"] for event in await events.rest()] == ["DELETED"]
    gone = await client.get(POOL_PATH)
    assert (gone.status, gone.body, gone.headers["Content-Type"]) == (
        404,
        b"404 page not found\n",
        "text/plain; charset=utf-8",
    )
    made = {key: definition[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": POOLS}}
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (await client.ask("POST", path, made)).status == 201
    assert (await client.get(POOL_PATH)).names == []
