"""The API server in tests: lists, pages, versions and selectors. Rules: "Kubernetes API Concepts"."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import PODS, Client, config_map, pod, served

EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def _fill(server: ApiServer, names: str) -> str:
    """Creates pods and tells the version after them."""
    return str([server.create(pod(name, at=name)) for name in names][-1]["metadata"]["resourceVersion"])


@served()
async def test_a_list_is_one_state_and_its_version(server: ApiServer, client: Client) -> None:
    version = _fill(server, "ba")
    answer = await client.get(PODS)
    assert (answer.json["kind"], answer.json["apiVersion"]) == ("PodList", "v1")
    assert (answer.names, answer.json["metadata"]) == (["a", "b"], {"resourceVersion": version})


@served(crds=["inferencepools.inference.networking.k8s.io"])
async def test_items_of_built_in_kinds_do_not_repeat_their_kind(server: ApiServer, client: Client) -> None:
    _fill(server, "a")
    pool = {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "p"}}
    server.create(pool)
    assert "kind" not in (await client.get(PODS)).json["items"][0]
    custom = (await client.get("/apis/inference.networking.k8s.io/v1/inferencepools")).json
    assert (custom["kind"], custom["items"][0]["kind"]) == ("InferencePoolList", "InferencePool")


@served()
async def test_a_list_is_of_one_namespace_or_of_all(server: ApiServer, client: Client) -> None:
    for name, namespace in (("a", "llm"), ("b", "llm-two"), ("c", "llm")):
        server.create(pod(name, namespace))
    assert (await client.get(PODS)).names == ["a", "c"]
    assert (await client.get("/api/v1/pods")).names == ["a", "c", "b"]
    assert (await client.get("/api/v1/namespaces/none/pods")).names == []


@served()
async def test_pages_show_the_state_of_the_first(server: ApiServer, client: Client) -> None:
    version = _fill(server, "abcde")
    first = await client.get(PODS, limit="2")
    server.delete("Pod", "llm", "d", grace_s=0)
    server.patch("Pod", "llm", "e", {"metadata": {"labels": {"at": "changed"}}})
    server.create(pod("c-new"))
    token = first.json["metadata"]["continue"]
    second = await client.get(PODS, limit="9", **{"continue": token})
    assert (first.names, first.json["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    assert (second.names, second.json["metadata"]) == (["c", "d", "e"], {"resourceVersion": version})
    assert second.json["items"][2]["metadata"]["labels"] == {"at": "e"}


@served()
async def test_the_last_page_has_no_token_even_if_it_is_full(server: ApiServer, client: Client) -> None:
    _fill(server, "ab")
    assert "continue" not in (await client.get(PODS, limit="2")).json["metadata"]


@served()
async def test_a_page_of_selected_objects_tells_no_remainder_and_the_last_may_be_empty(
    server: ApiServer, client: Client
) -> None:
    _fill(server, "abc")
    first = await client.get(PODS, limit="1", labelSelector="at=a")
    second = await client.get(PODS, limit="1", labelSelector="at=a", **{"continue": first.json["metadata"]["continue"]})
    assert (first.names, second.names, "remainingItemCount" in first.json["metadata"]) == (["a"], [], False)
    assert "continue" not in second.json["metadata"]


@served()
async def test_an_expired_token_is_gone_and_brings_one_to_go_on_with(server: ApiServer, client: Client) -> None:
    _fill(server, "abc")
    first = await client.get(PODS, limit="1")
    server.delete("Pod", "llm", "b", grace_s=0)
    server.faults.compact()
    gone = await client.get(PODS, limit="1", **{"continue": first.json["metadata"]["continue"]})
    assert gone.failure == (410, "Expired", EXPIRED_CONTINUE)
    token = gone.json["metadata"]["continue"]
    assert json.loads(base64.urlsafe_b64decode(token + "==")) == {"v": "meta.k8s.io/v1", "rv": -1, "start": "llm/a\0"}
    assert (await client.get(PODS, **{"continue": token})).names == ["c"]


@served()
async def test_a_token_that_was_never_given_is_refused(server: ApiServer, client: Client) -> None:
    assert (await client.get(PODS, **{"continue": "abc"})).failure[:2] == (400, "BadRequest")


@served()
async def test_versions_of_a_list(server: ApiServer, client: Client) -> None:
    old = _fill(server, "a")
    new = _fill(server, "b")
    assert (await client.get(PODS, resourceVersion=old)).names == ["a", "b"]  # not older than
    assert (await client.get(PODS, resourceVersion="0")).json["metadata"] == {"resourceVersion": new}
    exact = await client.get(PODS, resourceVersion=old, resourceVersionMatch="Exact")
    assert (exact.names, exact.json["metadata"]) == (["a"], {"resourceVersion": old})
    assert (await client.get(PODS, resourceVersion=old, limit="5")).names == ["a"]  # exact as well


@served()
async def test_a_limit_is_ignored_with_version_0(server: ApiServer, client: Client) -> None:
    _fill(server, "abc")
    assert (await client.get(PODS, resourceVersion="0", limit="1")).names == ["a", "b", "c"]


@served()
async def test_a_version_that_is_yet_to_come_is_too_large(server: ApiServer, client: Client) -> None:
    current = int(_fill(server, "a"))
    answer = await client.get(PODS, resourceVersion=str(current + 5))
    says = f"Timeout: Too large resource version: {current + 5}, current: {current}"
    assert answer.failure == (504, "Timeout", says)
    assert answer.headers["Retry-After"] == "1"


@served()
async def test_a_forgotten_version_is_gone_where_it_must_be_exact(server: ApiServer, client: Client) -> None:
    old = _fill(server, "a")
    _fill(server, "b")
    server.faults.compact()
    gone = await client.get(PODS, resourceVersion=old, resourceVersionMatch="Exact")
    assert gone.failure == (410, "Expired", "The resourceVersion for the provided list is too old.")
    assert (await client.get(PODS, resourceVersion=old)).names == ["a", "b"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ({"resourceVersion": "1", "resourceVersionMatch": "Never"}, 'Unsupported value: "Never"'),
        ({"resourceVersion": "0", "resourceVersionMatch": "Exact"}, 'forbidden for resourceVersion "0"'),
        ({"resourceVersion": "abc"}, 'resourceVersion: Invalid value: "abc"'),
    ],
    ids=["match alone", "unknown match", "exactly any", "no number"],
)
def test_options_that_mean_nothing_are_refused(query: dict[str, str], says: str) -> None:
    @served()
    async def wrong(server: ApiServer, client: Client) -> None:
        code, reason, message = (await client.get("/api/v1/pods", **query)).failure
        assert (code, reason, says in message) == (422, "Invalid", True), message

    wrong()


@served()
async def test_fields_select(server: ApiServer, client: Client) -> None:
    _fill(server, "abc")
    server.patch("Pod", "llm", "b", {"status": {"phase": "Pending"}, "spec": {"nodeName": "node-b"}})

    async def names(selector: str) -> list[str]:
        return (await client.get("/api/v1/pods", fieldSelector=selector)).names

    assert await names("metadata.name=c") == ["c"]
    assert await names("metadata.namespace=llm,status.phase=Pending") == ["b"]
    assert await names("spec.nodeName!=node-b,status.phase==Running") == ["a", "c"]
    refused = await client.get("/api/v1/pods", fieldSelector="spec.image=x")
    assert refused.failure == (400, "BadRequest", "field label not supported: spec.image")


@served()
async def test_a_large_list_is_compressed_for_who_reads_that(server: ApiServer, client: Client) -> None:
    server.create(config_map("big", text="x" * 200_000))
    path = "/api/v1/namespaces/llm/configmaps"
    packed = await client.ask("GET", path, headers={"Accept-Encoding": "gzip"})
    plain = await client.ask("GET", path, headers={"Accept-Encoding": "identity"})
    assert (packed.headers["Content-Encoding"], "Content-Encoding" in plain.headers) == ("gzip", False)
    assert int(packed.headers["Content-Length"]) < len(gzip.compress(plain.body, 1)) + 100
    assert packed.json["items"] == plain.json["items"]
