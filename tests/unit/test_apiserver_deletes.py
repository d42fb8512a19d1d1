"""The API server in tests: how objects go. Rules: "Resource deletion" of the API concepts, "Termination of Pods"."""

from __future__ import annotations

from tests.apiserver import ApiServer
from tests.apiserver.client import MAPS, PODS, Client, config_map, pod, served


@served()
async def test_a_deleted_object_is_answered_with_a_success(server: ApiServer, client: Client) -> None:
    made = server.create(config_map("a"))
    answer = (await client.ask("DELETE", f"{MAPS}/a")).json
    assert (answer["status"], answer["details"]) == (
        "Success",
        {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]},
    )
    assert (await client.get(f"{MAPS}/a")).failure == (404, "NotFound", 'configmaps "a" not found')


@served()
async def test_a_deletion_holds_its_preconditions(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    answer = await client.ask("DELETE", f"{MAPS}/a", {"preconditions": {"uid": "another"}})
    assert answer.failure[:2] == (409, "Conflict")
    assert "Precondition failed: UID in precondition: another" in answer.json["message"]
    assert server.get("ConfigMap", "llm", "a")


@served(clock=lambda: 1_750_000_000.0)
async def test_a_pod_is_marked_first_and_vanishes_when_its_kubelet_is_done(server: ApiServer, client: Client) -> None:
    made = server.create(pod("a"))
    async with client.watch(PODS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
        answer = (await client.ask("DELETE", f"{PODS}/a", {"gracePeriodSeconds": 20})).json
        assert answer["metadata"]["deletionTimestamp"] == "2025-06-15T15:07:00Z"
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 20
        assert await events.told(2) == [("MODIFIED", "a"), ("DELETED", "a")]
    assert server.all("Pod") == []


@served()
async def test_a_pod_without_grace_vanishes_at_once(server: ApiServer, client: Client) -> None:
    for name in ("body", "query"):
        server.create(pod(name))
    await client.ask("DELETE", f"{PODS}/body", {"gracePeriodSeconds": 0})
    await client.ask("DELETE", f"{PODS}/query?gracePeriodSeconds=0")
    assert server.all("Pod") == []


@served(kubelet=False)
async def test_without_a_kubelet_a_pod_vanishes_at_once(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    await client.ask("DELETE", f"{PODS}/a")
    assert server.all("Pod") == []


@served()
async def test_a_pod_that_has_ended_needs_no_grace(server: ApiServer, client: Client) -> None:
    server.create(pod("a") | {"status": {"phase": "Succeeded"}})
    await client.ask("DELETE", f"{PODS}/a")
    assert server.all("Pod") == []


@served()
async def test_a_marked_pod_can_be_deleted_at_once_still(server: ApiServer, client: Client) -> None:
    server.faults.termination_s = 3600.0
    server.create(pod("a"))
    server.delete("Pod", "llm", "a")
    assert "deletionTimestamp" in server.get("Pod", "llm", "a")["metadata"]
    server.delete("Pod", "llm", "a", grace_s=0)
    assert server.all("Pod") == []


@served()
async def test_a_kubelet_that_is_done_leaves_a_new_pod_of_the_same_name_alone(
    server: ApiServer, client: Client
) -> None:
    server.faults.termination_s = 0.01
    server.create(pod("a"))
    server.create(pod("b"))
    server.delete("Pod", "llm", "a")
    server.delete("Pod", "llm", "a", grace_s=0)
    server.create(pod("a"))
    async with client.watch(
        PODS, resourceVersion=str(server.get("Pod", "llm", "a")["metadata"]["resourceVersion"])
    ) as events:
        server.delete("Pod", "llm", "b")
        assert await events.told(2) == [("MODIFIED", "b"), ("DELETED", "b")]
    assert [each["metadata"]["name"] for each in server.all("Pod")] == ["a"]


@served()
async def test_an_object_waits_for_its_finalizers(server: ApiServer, client: Client) -> None:
    sent = config_map("a")
    sent["metadata"]["finalizers"] = ["example.com/clean"]
    server.create(sent)
    assert "deletionTimestamp" in (await client.ask("DELETE", f"{MAPS}/a")).json["metadata"]
    assert len(server.all("ConfigMap")) == 1
    patch = {"metadata": {"finalizers": []}}
    await client.ask("PATCH", f"{MAPS}/a", patch, form="application/merge-patch+json")
    assert server.all("ConfigMap") == []


@served()
async def test_a_namespace_takes_its_objects_with_it(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    server.create(config_map("b", "other"))
    await client.ask("DELETE", "/api/v1/namespaces/llm")
    assert (server.all("Pod"), len(server.all("ConfigMap"))) == ([], 1)
    assert (await client.get("/api/v1/namespaces/llm")).status == 404


@served()
async def test_a_collection_is_deleted_by_selector(server: ApiServer, client: Client) -> None:
    for name in ("a", "b", "c"):
        server.create(pod(name, app="x" if name == "b" else "y"))
    gone = await client.ask("DELETE", f"{PODS}?labelSelector=app%3Dy&gracePeriodSeconds=0")
    assert (gone.names, [each["metadata"]["name"] for each in server.all("Pod")]) == (["a", "c"], ["b"])
