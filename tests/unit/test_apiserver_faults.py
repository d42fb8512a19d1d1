"""The API server in tests: what goes wrong when a test asks for it."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.apiserver import ApiServer
from tests.apiserver.client import MAPS, PODS, Client, pod, served


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_path_is_answered_with_a_status(code: int) -> None:
    @served()
    async def fail(server: ApiServer, client: Client) -> None:
        server.faults.status = {PODS: code}
        answer = await client.get(f"{PODS}/a")
        assert (answer.failure[0], answer.headers.get("Retry-After")) == (code, None if code == 500 else "1")
        assert (await client.get(MAPS)).status == 200
        server.faults.status.clear()
        assert (await client.get(PODS)).status == 200

    fail()


@served()
async def test_refused_requests_get_no_answer(server: ApiServer, client: Client) -> None:
    server.faults.refuse = True
    with pytest.raises(aiohttp.ClientError):
        await client.get(PODS)
    server.faults.refuse = False
    assert (await client.get(PODS)).status == 200


@served(bookmark_s=0.01)
async def test_a_silent_server_sends_nothing_and_goes_on_where_it_stopped(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version, allowWatchBookmarks="1") as events:
        server.faults.silent = True
        server.create(pod("a"))
        held = asyncio.create_task(client.get(PODS))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await events.line()
        assert not held.done()
        server.faults.silent = False
        assert ("ADDED", "a") in await events.told(2)
        assert (await held).names == ["a"]


@served()
async def test_a_silent_server_accepts_watches(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    server.faults.silent = True
    async with client.watch(PODS) as events:
        assert events.response.status == 200
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await events.line()
        server.faults.silent = False
        assert await events.told(1) == [("ADDED", "a")]


@served()
async def test_cut_watches_end_and_can_begin_again(server: ApiServer, client: Client) -> None:
    begin = server.version
    async with client.watch(PODS, resourceVersion=begin) as first, client.watch(MAPS, resourceVersion=begin) as second:
        server.faults.cut_watches()
        assert (await first.rest(), await second.rest()) == ([], [])
    server.create(pod("a"))
    async with client.watch(PODS, resourceVersion=begin) as again:
        assert await again.told(1) == [("ADDED", "a")]


@served()
async def test_watches_drop_after_a_while(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version) as events:
        server.create(pod("a"))
        assert await events.told(1) == [("ADDED", "a")]
        server.faults.drop_watches_after_s = 0.01
        assert await events.rest() == []


@served()
async def test_answers_are_delayed(server: ApiServer, client: Client) -> None:
    server.faults.delay_s = 3600.0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get(PODS)
    server.faults.delay_s = 0.0
    assert (await client.get(PODS)).status == 200


@served()
async def test_continue_tokens_expire_when_asked(server: ApiServer, client: Client) -> None:
    for name in "abc":
        server.create(pod(name))
    token = (await client.get(PODS, limit="1")).json["metadata"]["continue"]
    server.faults.expire_continue = True
    assert (await client.get(PODS, limit="1", **{"continue": token})).failure[:2] == (410, "Expired")
    server.faults.expire_continue = False
    assert (await client.get(PODS, limit="1", **{"continue": token})).names == ["b"]


@served()
async def test_a_line_of_garbage_comes_once_before_an_event(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version) as events:
        server.faults.garbage = "line"
        server.create(pod("a"))
        with pytest.raises(ValueError, match=r"JSON is malformed|Input data was truncated"):
            await events.next()
        assert await events.told(1) == [("ADDED", "a")]
        server.create(pod("b"))
        assert await events.told(1) == [("ADDED", "b")]


@served()
async def test_an_object_of_wrong_types_comes_once_before_an_event(server: ApiServer, client: Client) -> None:
    async with client.watch(PODS, resourceVersion=server.version) as events:
        server.faults.garbage = "types"
        server.create(pod("a"))
        broken = (await events.next())["object"]
        assert (broken["kind"], broken["metadata"]["name"]) == ("Pod", "a")
        assert (broken["metadata"]["labels"], broken["spec"]) == ("no map", "no object")
        assert await events.told(1) == [("ADDED", "a")]


@served(control=True)
async def test_a_process_takes_its_faults_over_http(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    begin = server.version
    server.create(pod("b"))
    asked = await client.ask("POST", "/faults", {"status": {MAPS: 500}, "termination_s": 5, "compact": True})
    assert (asked.status, asked.json["status"], asked.json["termination_s"]) == (200, {MAPS: 500}, 5)
    assert (await client.get(MAPS)).status == 500
    async with client.watch(PODS, resourceVersion=begin) as events:
        assert (await events.next())["object"]["code"] == 410


@served()
async def test_a_knob_that_is_not_there_is_named(server: ApiServer, client: Client) -> None:
    with pytest.raises(AttributeError, match="no knob 'slience'; have: status, refuse, silent"):
        server.faults.slience = True
    assert (await client.get("/faults")).status == 404


@served()
async def test_a_server_that_stops_ends_its_streams_and_keeps_its_objects(server: ApiServer, client: Client) -> None:
    server.create(pod("a"))
    port = server.port
    async with client.watch(PODS, resourceVersion=server.version) as events:
        await server.stop()
        assert await events.rest() == []
    await server.start(port=port)
    assert (await client.get(PODS)).names == ["a"]
