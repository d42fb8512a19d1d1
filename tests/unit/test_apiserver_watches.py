"""The API server in tests: watch streams. Rules: "Efficient detection of changes" of the Kubernetes API concepts."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import MAPS, PODS, Client, config_map, pod, served


@pytest.mark.parametrize("query", [{}, {"resourceVersion": "0"}], ids=["unset", "0"])
def test_a_watch_from_no_version_begins_with_what_there_is(query: dict[str, str]) -> None:
    @served()
    async def watch(server: ApiServer, client: Client) -> None:
        server.create(pod("b"))
        server.create(pod("a"))
        async with client.watch(PODS, **query) as events:
            assert await events.told(2) == [("ADDED", "a"), ("ADDED", "b")]
            server.create(pod("c"))
            assert await events.told(1) == [("ADDED", "c")]

    watch()


@served()
async def test_a_watch_from_a_version_tells_every_change_after_it_in_order(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    begin = server.version
    server.create(pod("b"))
    server.patch("Pod", "llm", "a", {"metadata": {"labels": {"new": "yes"}}})
    server.delete("Pod", "llm", "b", grace_s=0)
    async with client.watch(PODS, resourceVersion=begin) as events:
        assert await events.told(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
        server.create(pod("b"))
        event = await events.next()
    assert (event["type"], event["object"]["kind"], event["object"]["apiVersion"]) == ("ADDED", "Pod", "v1")


@served()
async def test_versions_of_events_rise_and_a_deletion_has_one_of_its_own(server: ApiServer, client: Client) -> None:
    begin = server.version
    async with client.watch(PODS, resourceVersion=begin) as events:
        server.create(pod("a"))
        server.delete("Pod", "llm", "a", grace_s=0)
        server.create(pod("b"))
        versions = [int((await events.next())["object"]["metadata"]["resourceVersion"]) for _ in range(3)]
    assert [begin, *map(str, versions)] == sorted({begin, *map(str, versions)}, key=int)


@served()
async def test_a_watch_of_a_namespace_tells_of_no_other(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version) as events:
        server.create(pod("a", "llm-two"))
        server.create(pod("b", "llm"))
        assert await events.told(1) == [("ADDED", "b")]


@served()
async def test_an_object_enters_and_leaves_a_selection(server: ApiServer, client: Client) -> None:
    server.create(pod("a", app="x"))
    async with client.watch(PODS, resourceVersion=server.version, labelSelector="app=y") as events:
        for labels in ({"app": "y"}, {"more": "1"}, {"app": "z"}):
            changed = server.patch("Pod", "llm", "a", {"metadata": {"labels": labels}})
        seen = [await events.next() for _ in range(3)]
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "DELETED"]
    last = seen[2]["object"]["metadata"]
    assert last["labels"] == {"app": "y", "more": "1"}  # as it was when it was selected last
    assert last["resourceVersion"] == changed["metadata"]["resourceVersion"]


@served()
async def test_a_selected_object_that_is_deleted_is_told_once(server: ApiServer, client: Client) -> None:
    server.create(pod("a", app="x"))
    server.create(pod("b", app="y"))
    async with client.watch(PODS, resourceVersion=server.version, labelSelector="app=y") as events:
        server.delete("Pod", "llm", "a", grace_s=0)
        server.delete("Pod", "llm", "b", grace_s=0)
        assert await events.told(1) == [("DELETED", "b")]


@served()
async def test_one_object_is_watched_by_its_name(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version, fieldSelector="metadata.name=b") as events:
        server.create(pod("a"))
        server.create(pod("b"))
        assert await events.told(1) == [("ADDED", "b")]


@served(bookmark_s=0.01)
async def test_bookmarks_bring_the_newest_version_to_who_wants_them(server: ApiServer, client: Client) -> None:
    begin = server.version
    newest = server.create(config_map("other"))["metadata"]["resourceVersion"]
    async with client.watch(PODS, resourceVersion=begin, allowWatchBookmarks="true") as events:
        event = await events.next()
    metadata = {"resourceVersion": newest, "creationTimestamp": None}
    assert event == {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": metadata}}


@served(bookmark_s=0.01)
async def test_without_asking_there_are_no_bookmarks(server: ApiServer, client: Client) -> None:
    server.faults.drop_watches_after_s = 0.1
    async with client.watch(PODS, resourceVersion=server.version) as events:
        assert await events.rest() == []


@served()
async def test_a_watch_ends_at_its_timeout_with_a_bookmark(server: ApiServer, client: Client) -> None:
    query = {"resourceVersion": server.version, "timeoutSeconds": "1", "allowWatchBookmarks": "1"}
    async with client.watch(PODS, **query) as events:
        assert [event["type"] for event in await events.rest()] == ["BOOKMARK"]


@pytest.mark.parametrize("as_status", [False, True], ids=["ERROR event", "HTTP status"])
def test_a_watch_from_a_forgotten_version_is_gone(as_status: bool) -> None:
    @served(history=2)
    async def watch(server: ApiServer, client: Client) -> None:
        server.faults.gone_as_status = as_status
        begin = server.version
        for name in "abc":
            server.create(pod(name))
        oldest = int(begin) + 2  # after the namespace and pod a
        async with client.watch(PODS, resourceVersion=begin) as events:
            answered, [told] = events.response.status, await events.rest()
        status = told if as_status else told["object"]
        assert (answered, told.get("type")) == ((410, None) if as_status else (200, "ERROR"))
        assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")
        assert status["message"] == f"too old resource version: {begin} ({oldest})"

    watch()


@served(history=2)
async def test_history_is_kept_a_kind(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    begin = server.version
    for name in "abcd":
        server.create(config_map(name))
    async with client.watch(PODS, resourceVersion=begin) as events:
        server.create(pod("b"))
        assert await events.told(1) == [("ADDED", "b")]


@served()
async def test_compaction_forgets_what_was_and_leaves_open_watches_alone(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    begin = server.version
    async with client.watch(PODS, resourceVersion=begin) as before:
        newest = _version_of(server.create(config_map("late")))
        server.faults.compact()
        server.create(pod("b"))
        assert await before.told(1) == [("ADDED", "b")]
    async with client.watch(PODS, resourceVersion=newest) as after:
        assert await after.told(1) == [("ADDED", "b")]
    async with client.watch(PODS, resourceVersion=begin) as late:
        assert (await late.next())["object"]["code"] == 410


def _version_of(content: dict[str, dict[str, str]]) -> str:
    return content["metadata"]["resourceVersion"]


@served()
async def test_a_watch_from_a_version_yet_to_come_waits_for_it(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    ahead = str(int(server.version) + 1)
    async with client.watch(PODS, resourceVersion=ahead) as events:
        server.create(pod("b"))
        server.create(pod("c"))
        assert await events.told(1) == [("ADDED", "c")]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (
            {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"},
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ),
        (
            {"resourceVersionMatch": "NotOlderThan"},
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ],
    ids=["sendInitialEvents", "resourceVersionMatch"],
)
def test_the_server_has_no_watch_list(query: dict[str, str], says: str) -> None:
    @served()
    async def watch(server: ApiServer, client: Client) -> None:
        answer = await client.get(PODS, watch="true", **query)
        assert (answer.status, says in answer.json["message"]) == (422, True)

    watch()


@served()
async def test_a_stream_is_chunked_lines_of_json(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    async with client.watch(PODS) as events:
        headers = events.response.headers
        assert (headers["Transfer-Encoding"], headers["Content-Type"]) == ("chunked", "application/json")
        assert (await events.line()).endswith(b"}\n")


@served(history=3)
async def test_a_reader_that_is_too_slow_loses_its_stream(server: ApiServer, client: Client) -> None:
    async with client.watch(MAPS, resourceVersion=server.version) as events:
        for number in range(150):
            server.create(config_map(f"a{number}"))
        assert await events.rest() == []


@served()
async def test_a_client_that_goes_leaves_nothing_behind(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version):
        assert server.watches == 1
    while server.watches:
        await client.get("/readyz")  # some turns of the loop
    assert [path for _, path, _ in server.requests if "watch=1" in path] != []


def test_a_client_that_goes_in_the_middle_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    @served()
    async def leave(server: ApiServer, client: Client) -> None:
        for turn in range(20):
            async with aiohttp.ClientSession(server.url) as leaving:
                answer = await leaving.get(f"{MAPS}?watch=1")
                server.create(config_map(f"a-{turn}", text="x" * 50_000))
                answer.close()
            for number in range(3):
                await asyncio.sleep(0)  # so that each is sent by itself
                server.create(config_map(f"a-{turn}-{number}", text="x" * 50_000))

    leave()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
