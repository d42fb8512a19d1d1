"""Elections over a small API server, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from epp.kube.lease_runner import Election, awake
from tests.unit.lease_server import NAME, LeaseServer
from tests.unit.virtual_time import run_virtually

WALL = 1_700_000_000.0


def candidate(server: LeaseServer, name: str, told: list[tuple[str, bool]] | None = None) -> Election:
    heard = [] if told is None else told
    return Election(
        server.client(),
        ("town", NAME),
        name,
        changed=lambda leading: heard.append((name, leading)),
        clock=(clock := asyncio.get_running_loop().time),
        wall=lambda: WALL + clock(),
        chance=lambda: 0.5,
    )


@asynccontextmanager
async def running(*elections: Election) -> AsyncIterator[None]:
    """Each runs as a process of its own would: none knows of the others."""
    tasks = [asyncio.create_task(election.run()) for election in elections]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def when(true: Callable[[], bool], within: float = 60.0) -> float:
    """Virtual seconds until it is so."""
    began = asyncio.get_running_loop().time()
    while not true():
        await asyncio.sleep(0.001)
        assert asyncio.get_running_loop().time() - began < within
    return asyncio.get_running_loop().time() - began


@asynccontextmanager
async def led(server: LeaseServer) -> AsyncIterator[tuple[Election, Election]]:
    """Two candidates, of whom the first leads and the second waits."""
    one, two = candidate(server, "a"), candidate(server, "b")
    async with running(one):
        await when(lambda: one.leading)
        async with running(two):
            yield one, two


def virtually(test: Callable[[], Awaitable[None]]) -> None:
    async def wrapped() -> None:
        await test()

    run_virtually(wrapped())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_first_leads_and_the_lease_says_so() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        async with running(one):
            assert await when(lambda: one.leading) < 0.01
            await asyncio.sleep(2.5)
            assert server.lease is not None
            assert server.lease["spec"] == {
                "holderIdentity": "a",
                "leaseDurationSeconds": 15,
                "acquireTime": "2023-11-14T22:13:20.001000Z",
                "renewTime": "2023-11-14T22:13:22.001000Z",
                "leaseTransitions": 0,
            }

    virtually(test)


def test_labels_of_others_stay_when_the_lease_is_renewed() -> None:
    async def test() -> None:
        server = LeaseServer()
        server.put({"holderIdentity": ""}, labels={"team": "x"})
        one = candidate(server, "a")
        async with running(one):
            await when(lambda: one.leading)
            await asyncio.sleep(10)
        assert server.lease is not None
        assert server.lease["metadata"]["labels"] == {"team": "x"}

    virtually(test)


def test_a_leader_renews_every_two_seconds_and_a_follower_asks_for_nothing() -> None:
    async def test() -> None:
        server = LeaseServer()
        async with led(server):
            await asyncio.sleep(5)
            server.asked.clear()
            await asyncio.sleep(60)
        assert {method for _, method in server.asked} == {"PUT"}
        assert len(server.asked) == 30

    virtually(test)


def test_a_released_lease_is_taken_within_milliseconds() -> None:
    async def test() -> None:
        server, told = LeaseServer(), list[tuple[str, bool]]()
        one, two = candidate(server, "a", told), candidate(server, "b", told)
        async with running(one):
            await when(lambda: one.leading)
            async with running(two):
                await asyncio.sleep(33)
                assert await one.release()
                assert not one.leading
                assert await when(lambda: two.leading) < 0.01
        assert told[:3] == [("a", True), ("a", False), ("b", True)]

    virtually(test)


def test_a_lease_given_up_is_written_as_go_clients_write_it() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        async with running(one):
            await when(lambda: one.leading)
            await one.release()
        assert server.lease is not None
        assert (server.lease["spec"]["holderIdentity"], server.lease["spec"]["leaseDurationSeconds"]) == ("", 1)

    virtually(test)


def test_run_ends_once_the_lease_is_released() -> None:
    async def test() -> None:
        one = candidate(LeaseServer(), "a")
        work = asyncio.create_task(one.run())
        await when(lambda: one.leading)
        await one.release()
        await work

    virtually(test)


def test_a_release_waits_for_the_renewal_on_its_way() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        async with running(one):
            await when(lambda: one.leading)
            server.answer_s = 0.5
            await asyncio.sleep(2.2)
            assert await one.release()
        assert server.holder == ""

    virtually(test)


def test_a_release_that_meets_a_conflict_looks_again() -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        one._api.lines = silence  # type: ignore[method-assign]
        async with running(one):
            await when(lambda: one.leading)
            assert server.lease is not None
            server.put(server.lease["spec"], labels={"new": "label"})
            assert await one.release()
        assert server.holder == ""

    virtually(test)


async def silence(path: str, **_: object) -> AsyncIterator[bytes]:
    """A watch that never tells anything."""
    await asyncio.sleep(1e9)
    yield b""


def test_a_release_gives_up_in_time_when_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        async with running(one):
            await when(lambda: one.leading)
            server.silent = True
            began = asyncio.get_running_loop().time()
            assert not await one.release(1.5)
            assert asyncio.get_running_loop().time() - began == pytest.approx(1.5)

    virtually(test)
    assert "lease not released: no answer in time; another replica leads when it has run out" in warnings(caplog)


def test_a_follower_has_nothing_to_release() -> None:
    async def test() -> None:
        server = LeaseServer()
        async with led(server) as (one, two):
            await asyncio.sleep(3)
            assert await two.release()
            assert (server.holder, one.leading) == ("a", True)

    virtually(test)


def test_a_dead_leader_is_followed_when_its_lease_has_run_out() -> None:
    async def test() -> None:
        server = LeaseServer()
        one, two = candidate(server, "a"), candidate(server, "b")
        async with running(two), running(one):
            await when(lambda: one.leading or two.leading)
            dead, other = (one, two) if one.leading else (two, one)
            dead._api.cut_off = True  # type: ignore[attr-defined]
            assert 13 <= await when(lambda: other.leading) <= 18
            assert not dead.leading

    virtually(test)


def test_who_is_cut_off_stops_leading_after_ten_seconds_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server, told = LeaseServer(), list[tuple[str, bool]]()
        one = candidate(server, "a", told)
        async with running(one):
            await when(lambda: one.leading)
            one._api.cut_off = True  # type: ignore[attr-defined]
            await asyncio.sleep(9.9)
            assert one.leading
            await asyncio.sleep(0.11)
            assert told == [("a", True), ("a", False)]
            one._api.cut_off = False  # type: ignore[attr-defined]
            await when(lambda: one.leading)

    virtually(test)
    assert f"leading no more: the lease could not be renewed for 10 s (can't write lease town/{NAME}: " in "".join(
        warnings(caplog)
    )


def test_a_process_that_was_stopped_does_not_believe_it_leads() -> None:
    """Time jumps and nothing has run yet: the answer must be right all the same."""

    async def test() -> None:
        server = LeaseServer()
        now = [0.0]
        one = candidate(server, "a")
        one._clock = lambda: asyncio.get_running_loop().time() + now[0]
        async with running(one):
            await when(lambda: one.leading)
            now[0] = 20.0
            assert not one.leading
            server.put({"holderIdentity": "b", "leaseDurationSeconds": 15, "renewTime": "x"})
            await asyncio.sleep(5)
            assert (one.leading, server.holder) == (False, "b")

    virtually(test)


@pytest.mark.parametrize(
    "spec",
    [
        {"holderIdentity": 5, "leaseDurationSeconds": -3, "leaseTransitions": "many", "acquireTime": 0},
        {"holderIdentity": "x", "leaseDurationSeconds": -3, "leaseTransitions": -1, "renewTime": "yesterday"},
        {"holderIdentity": "x", "leaseDurationSeconds": 10**12, "leaseTransitions": 2**40, "acquireTime": "soon"},
        {"holderIdentity": "x", "leaseDurationSeconds": True},
        {},
        None,
        "spec",
        [1],
    ],
    ids=str,
)
def test_whatever_somebody_wrote_into_the_lease_it_is_led_again_in_time(spec: object) -> None:
    async def test() -> None:
        server = LeaseServer()
        one = candidate(server, "a")
        async with running(one):
            await when(lambda: one.leading)
            server.put(spec)
            await when(lambda: not one.leading, within=0.1)
            assert await when(lambda: one.leading) < 16
        assert server.holder == "a"

    virtually(test)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"metadata": {}}', b"\xff"], ids=str)
def test_what_is_no_lease_is_told_and_asked_for_again(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = LeaseServer()
        right, server.answer = server.answer, lambda *_: answer  # type: ignore[method-assign]
        one = candidate(server, "a")
        async with running(one):
            await asyncio.sleep(20)
            assert not one.leading
            server.answer = right  # type: ignore[method-assign]
            await when(lambda: one.leading, within=5)

    virtually(test)
    assert len(warnings(caplog)) == 1
    assert f"can't read lease town/{NAME}: what came is no Lease" in warnings(caplog)[0]


def test_a_missing_role_is_told_once_with_what_it_must_allow(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = LeaseServer(refuse={"GET": 403, "PUT": 403, "POST": 403, "WATCH": 403})
        one = candidate(server, "a")
        async with running(one):
            await asyncio.sleep(55)
            server.refuse.clear()
            await when(lambda: one.leading, within=5)

    virtually(test)
    assert sorted(warnings(caplog)) == [
        f"can't {verb} lease town/{NAME}: refused; a Role in that namespace must allow get, list, watch, create, "
        "update and patch on leases of coordination.k8s.io"
        for verb in ("read", "watch")
    ]


def test_a_missing_namespace_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = LeaseServer(refuse={"POST": 404})
        one = candidate(server, "a")
        async with running(one):
            await asyncio.sleep(30)
            assert len(server.asked) < 60
            server.refuse.clear()
            await when(lambda: one.leading, within=5)

    virtually(test)
    assert warnings(caplog) == [f"can't write lease town/{NAME}: refused"]


def test_without_the_right_to_watch_a_released_lease_is_found_by_polling() -> None:
    async def test() -> None:
        server = LeaseServer(refuse={"WATCH": 403})
        async with led(server) as (one, two):
            await asyncio.sleep(10)
            await one.release()
            assert await when(lambda: two.leading) <= 3.1

    virtually(test)


def test_a_watch_that_ends_is_begun_again_at_once() -> None:
    async def test() -> None:
        server = LeaseServer()
        async with led(server) as (one, two):
            await asyncio.sleep(5)
            server.end_watches()
            await asyncio.sleep(0.01)
            await one.release()
            assert await when(lambda: two.leading) < 0.1

    virtually(test)


def test_a_watch_that_tells_of_an_error_is_begun_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        server = LeaseServer()
        async with led(server) as (one, two):
            await asyncio.sleep(5)
            server.break_watches()
            await asyncio.sleep(20)
            await one.release()
            assert await when(lambda: two.leading) < 0.1

    virtually(test)
    assert "too old resource version" in caplog.text


def test_a_deleted_lease_costs_nobody_the_lead() -> None:
    async def test() -> None:
        server, told = LeaseServer(), list[tuple[str, bool]]()
        one, two = candidate(server, "a", told), candidate(server, "b", told)
        async with running(one):
            await when(lambda: one.leading)
            async with running(two):
                await asyncio.sleep(5)
                server.delete()
                await asyncio.sleep(30)
                assert (told, server.holder) == ([("a", True)], "a")

    virtually(test)


def test_its_state_is_shown() -> None:
    async def test() -> None:
        one = candidate(LeaseServer(), "a")
        async with running(one):
            await when(lambda: one.leading)
            assert one.state == {
                "lease": f"town/{NAME}",
                "identity": "a",
                "leading": True,
                "holder": "a",
                "renewTime": "2023-11-14T22:13:20.001000Z",
                "transitions": 0,
                "trouble": "",
            }

    virtually(test)


def test_who_is_cancelled_leads_no_more() -> None:
    async def test() -> None:
        told: list[tuple[str, bool]] = []
        one = candidate(LeaseServer(), "a", told)
        async with running(one):
            await when(lambda: one.leading)
        assert (one.leading, told) == (False, [("a", True), ("a", False)])

    virtually(test)


def test_the_clock_goes_on() -> None:
    assert awake() <= awake()
