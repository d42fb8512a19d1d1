"""The API server in tests: the three kinds of patch, against examples of RFC 6902 and 7386."""

from __future__ import annotations

from typing import Any

import pytest

from tests.apiserver import ApiError, ApiServer
from tests.apiserver.client import MAPS, PODS, Client, config_map, pod, served
from tests.apiserver.patches import APPLY, JSON_PATCH, MERGE_PATCH, STRATEGIC, json_patch, merge
from tests.apiserver.strategic import strategic


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_of_rfc_7386(target: Any, patch: Any, wanted: Any) -> None:
    assert merge(target, patch) == wanted


@pytest.mark.parametrize(
    ("target", "operations", "wanted"),
    [
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"a/b": 1}, [{"op": "replace", "path": "/a~1b", "value": 2}], {"a/b": 2}),
    ],
)
def test_json_patches_of_rfc_6902(target: Any, operations: Any, wanted: Any) -> None:
    assert json_patch(target, operations) == wanted


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "add", "path": "/baz/bat", "value": "qux"}],
        [{"op": "remove", "path": "/none"}],
        [{"op": "replace", "path": "/none", "value": 1}],
        [{"op": "test", "path": "/foo", "value": "other"}],
        [{"op": "add", "path": "/list/7", "value": 1}],
        [{"op": "jump", "path": "/foo"}],
        [{"op": "replace", "path": "/foo", "value": 1}, {"op": "remove", "path": "/none"}],
    ],
    ids=["no parent", "remove", "replace", "test", "index", "unknown", "second of two"],
)
def test_a_json_patch_that_does_not_fit_changes_nothing(operations: Any) -> None:
    target = {"foo": "bar", "list": []}
    with pytest.raises(ApiError) as refused:
        json_patch(target, operations)
    assert (refused.value.code, refused.value.reason, target) == (422, "Invalid", {"foo": "bar", "list": []})


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        (
            {"containers": [{"name": "a", "image": "1"}]},
            {"containers": [{"name": "b", "image": "2"}]},
            {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]},
        ),
        (
            {"containers": [{"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}]}]},
            {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]},
            {
                "containers": [
                    {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}
                ]
            },
        ),
        (
            {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other", "status": "True"}]},
            {"conditions": [{"type": "Ready", "status": "True"}]},
            {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "c"}, {"$patch": "replace"}]},
            {"containers": [{"name": "c"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        ({"finalizers": ["a"]}, {"finalizers": ["b"]}, {"finalizers": ["a", "b"]}),
        (
            {"finalizers": ["a", "b"]},
            {"$deleteFromPrimitiveList/finalizers": ["a"]},
            {"finalizers": ["b"]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {
                "containers": [{"name": "c"}],
                "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
            },
            {"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
        ),
        (
            {"strategy": {"type": "A", "a": 1}},
            {"strategy": {"$retainKeys": ["type"], "type": "B"}},
            {"strategy": {"type": "B"}},
        ),
        ({"labels": {"a": "1"}}, {"labels": {"$patch": "replace", "b": "2"}}, {"labels": {"b": "2"}}),
        ({"labels": {"a": "1", "b": "2"}}, {"labels": {"a": None}}, {"labels": {"b": "2"}}),
        (
            {"ports": [{"containerPort": 1, "name": "a"}]},
            {"ports": [{"containerPort": 2}]},
            {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2}]},
        ),
    ],
    ids=[
        "a new container",
        "into a container",
        "a condition",
        "delete one",
        "replace a list",
        "tolerations are replaced",
        "text is replaced",
        "finalizers are a set",
        "taken from a set",
        "order",
        "retain keys",
        "replace a map",
        "delete a key",
        "ports",
    ],
)
def test_strategic_merge_patches(target: Any, patch: Any, wanted: Any) -> None:
    assert strategic(target, patch) == wanted


@pytest.mark.parametrize(
    ("form", "patch"),
    [
        (MERGE_PATCH, {"metadata": {"labels": {"new": "yes"}}}),
        (STRATEGIC, {"metadata": {"labels": {"new": "yes"}}}),
        (JSON_PATCH, [{"op": "add", "path": "/metadata/labels/new", "value": "yes"}]),
    ],
    ids=["merge", "strategic", "json"],
)
def test_a_patch_changes_an_object(form: str, patch: Any) -> None:
    @served()
    async def change(server: ApiServer, client: Client) -> None:
        old = server.create(pod("a", app="x"))
        answer = await client.ask("PATCH", f"{PODS}/a", patch, form=form)
        assert (answer.status, answer.json["metadata"]["labels"]) == (200, {"app": "x", "new": "yes"})
        assert int(answer.json["metadata"]["resourceVersion"]) == int(old["metadata"]["resourceVersion"]) + 1

    change()


@served()
async def test_a_patch_with_a_version_conflicts_with_a_change_since(server: ApiServer, client: Client) -> None:
    old = server.create(config_map("a"))["metadata"]["resourceVersion"]
    server.patch("ConfigMap", "llm", "a", {"data": {"key": "theirs"}})
    patch = {"metadata": {"resourceVersion": old}, "data": {"key": "ours"}}
    assert (await client.ask("PATCH", f"{MAPS}/a", patch, form=MERGE_PATCH)).failure[:2] == (409, "Conflict")


@served()
async def test_a_patch_of_nothing_is_not_found_and_one_that_renames_refused(server: ApiServer, client: Client) -> None:
    server.create(config_map("a"))
    patch = {"metadata": {"name": "b"}}
    assert (await client.ask("PATCH", f"{MAPS}/b", patch, form=MERGE_PATCH)).failure[:2] == (404, "NotFound")
    assert (await client.ask("PATCH", f"{MAPS}/a", patch, form=MERGE_PATCH)).failure[:2] == (400, "BadRequest")


@served(crds=["inferencepools.inference.networking.k8s.io"])
async def test_custom_kinds_have_no_strategic_merge_patch(server: ApiServer, client: Client) -> None:
    metadata = {"name": "pool", "namespace": "llm"}
    server.create({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": metadata})
    path = "/apis/inference.networking.k8s.io/v1/namespaces/llm/inferencepools/pool"
    code, reason, message = (await client.ask("PATCH", path, {}, form=STRATEGIC)).failure
    assert (code, reason) == (415, "UnsupportedMediaType")
    assert "application/merge-patch+json" in message


@served()
async def test_server_side_apply_is_refused_in_clear_words(server: ApiServer, client: Client) -> None:
    answer = await client.ask("PATCH", f"{MAPS}/a", config_map("a"), form=APPLY)
    assert answer.failure == (415, "UnsupportedMediaType", "no server-side apply in this API server for tests")
