"""A request at the queue, seen from its stream: waits, goes, is refused, leaves, is ended."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from epp.admission import Queueing
from epp.bodies.parsed import Parsed
from epp.extproc.dialogue import Dialogue
from epp.flow.control import FlowControl
from epp.flow.settings import BandRules, FlowRules
from epp.plan import Measured, Setup
from epp.plugins import Plugin, PluginType
from epp.rewrites import Steering
from epp.rules import Asked
from epp.scheduler import Bound
from epp.signals import Provides, column
from epp.types import Outcome
from tests.unit.kit import World, request_body, request_headers, response_body, response_headers, said, setup
from tests.unit.virtual_time import run_virtually

BODY = json.dumps({"model": "m", "prompt": "x", "stream": True}).encode()


class Strict:
    def turn(self, band: Any, now: float) -> Any:
        return band.best()

    __call__ = turn


def plugin(instance: Any, place: str) -> Plugin:
    return Plugin(place, PluginType(place, (place,), type(instance), (), "tests"), instance, {})


def rules(**more: Any) -> FlowRules:
    limit = plugin(lambda saturation, priorities: (1.0,) * len(priorities), "usage_limit")
    band = BandRules(plugin(Strict(), "fairness"), plugin(lambda ticket: ticket.queued_at, "ordering"))
    return FlowRules(limit, band, **more)


class Silent:
    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Queued(World):
    """A router whose pool takes `seats` requests at a time."""

    def __init__(self, seats: int = 1, *, made: Setup | None = None, **more: Any) -> None:
        super().__init__(made=made)
        loop = asyncio.get_running_loop()
        self.router.now = loop.time
        self.flow = FlowControl(
            rules(**more),
            now=loop.time,
            saturation=lambda: self.pool.ledger.requests / seats,
            pool_size=lambda: len(self.pool),
            later=loop.call_later,
            observer=Silent(),  # type: ignore[arg-type]  # takes every call
        )
        self.router.queueing = Queueing(self.flow, loop.call_soon)
        self.router.queueing.evicts = bool(more.get("evict"))
        self.router.steering = Steering(objectives={"batch": -1})

    def enter(self, **headers: str) -> tuple[Dialogue, list[bytes] | Awaitable[list[bytes]]]:
        dialogue = self.dialogue()
        said(dialogue, request_headers(**headers))
        return dialogue, dialogue.receive(request_body(BODY).SerializeToString())


def first(answers: list[bytes]) -> ProcessingResponse:
    return ProcessingResponse.FromString(answers[0])


def test_a_request_that_may_go_is_answered_in_the_same_call() -> None:
    async def work() -> None:
        world = Queued()
        _, answers = world.enter()
        assert isinstance(answers, list)
        assert first(answers).HasField("request_headers")

    run_virtually(work())


def test_one_that_must_wait_goes_when_the_one_before_it_ends() -> None:
    async def work() -> None:
        world = Queued()
        before, _ = world.enter()
        _, answers = world.enter()
        assert not isinstance(answers, list)
        waiting = asyncio.ensure_future(answers)
        await asyncio.sleep(1.0)
        assert not waiting.done()
        before.close("client-disconnect")
        assert first(await waiting).HasField("request_headers")
        assert world.notes.inflight_requests == 1

    run_virtually(work())


def test_one_whose_client_leaves_at_once_leaves_nothing_behind() -> None:
    async def work() -> None:
        world = Queued()
        world.enter()
        before = world.flow.state()["requests"]
        account = world.router.open(0.0)
        waiting = account.pick(Asked({}, {}, "/v1/completions", Parsed("completions", "m")))
        assert (before, world.flow.state()["requests"]) == (0, 1)
        account.settle(Outcome(usage=None, status=0, cause="error", ttft_s=None, duration_s=0.0))
        del waiting  # nobody awaits it any more; a coroutine would complain
        gc.collect()
        assert world.flow.state()["requests"] == 0

    run_virtually(work())


def test_each_dispatch_is_charged_before_the_next_one_is_looked_at() -> None:
    async def work() -> None:
        world = Queued(seats=2)
        running = [world.enter()[0] for _ in range(2)]
        waiting = [asyncio.ensure_future(world.enter()[1]) for _ in range(5)]  # type: ignore[arg-type]  # all wait
        await asyncio.sleep(0.1)
        for dialogue in running:
            dialogue.close("client-disconnect")
        await asyncio.sleep(0.1)
        assert sum(task.done() for task in waiting) == 2
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)

    run_virtually(work())


@pytest.mark.parametrize("leaves", [False, True])
def test_a_slow_decision_holds_its_place_until_it_is_charged(leaves: bool) -> None:
    async def work() -> None:
        known = asyncio.Event()

        async def value() -> Any:
            await known.wait()
            return np.array([0.5])

        provides = Provides({"x": column(0.25)}, "", False, 60_000.0)
        world = Queued(made=setup(signals=(Measured(Bound("slow", value, ()), provides, ("x",)),)))
        deciding, slow = world.enter()
        _, queued = world.enter()
        first_task = asyncio.ensure_future(slow)  # type: ignore[arg-type]  # its signal is slow
        second_task = asyncio.ensure_future(queued)  # type: ignore[arg-type]  # it waits
        await asyncio.sleep(0.1)
        assert world.flow.state()["requests"] == 1
        if leaves:
            first_task.cancel()
            await asyncio.wait({first_task})
            deciding.close("client-disconnect")
        known.set()
        if not leaves:
            await first_task
            assert world.pool.ledger.requests == 1
            deciding.close("client-disconnect")
        await second_task
        assert world.pool.ledger.requests == 1

    run_virtually(work())


def test_a_client_that_leaves_is_out_of_the_queue_at_once_and_counted_as_gone() -> None:
    async def work() -> None:
        world = Queued()
        world.enter()
        left, answers = world.enter()
        task = asyncio.ensure_future(answers)  # type: ignore[arg-type]  # it waits
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.close("client-disconnect")
        assert world.flow.state()["requests"] == 0
        assert world.notes.all("refused") == [503]

    run_virtually(work())


@pytest.mark.parametrize("closing", [False, True])
def test_a_client_that_leaves_in_the_turn_in_which_its_turn_comes_harms_nobody(closing: bool) -> None:
    async def work() -> None:
        world = Queued()
        before, _ = world.enter()
        _, leaving = world.enter()
        _, staying = world.enter()
        gone = asyncio.ensure_future(leaving)  # type: ignore[arg-type]  # it waits
        stays = asyncio.ensure_future(staying)  # type: ignore[arg-type]  # it waits
        await asyncio.sleep(0)
        gone.cancel()
        # The task has not heard of it yet, so its place in the queue is still there.
        if closing:
            world.flow.close()
        else:
            before.close("client-disconnect")
            world.flow.changed()
        answer = first(await stays)
        assert answer.HasField("immediate_response" if closing else "request_headers")
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert world.flow.state()["requests"] == 0
        assert world.notes.inflight_requests == 1
        assert world.flow.state()["in_flight"]["requests"] == 1

    run_virtually(work())


def test_the_end_of_the_stream_alone_takes_it_out_of_the_queue() -> None:
    async def work() -> None:
        world = Queued()
        world.enter()
        left, answers = world.enter()
        task = asyncio.ensure_future(answers)  # type: ignore[arg-type]  # it waits
        await asyncio.sleep(0)
        left.close("client-disconnect")
        assert world.flow.state()["requests"] == 0
        task.cancel()
        await asyncio.wait({task})

    run_virtually(work())


def test_one_that_waited_too_long_is_refused_with_its_reason_and_when_to_try_again() -> None:
    async def work() -> None:
        world = Queued(ttl_s=5.0)
        world.enter()
        _, answers = world.enter()
        assert not isinstance(answers, list)
        refusal = first(await answers).immediate_response
        headers = {one.header.key: one.header.raw_value for one in refusal.headers.set_headers}
        assert refusal.status.code == 429
        assert headers["x-llm-d-request-dropped-reason"] == b"rejected-ttl-expired"
        assert int(headers["retry-after"]) >= 1
        assert asyncio.get_running_loop().time() == pytest.approx(5.0, abs=0.01)

    run_virtually(work())


def test_shutdown_refuses_who_still_waits() -> None:
    async def work() -> None:
        world = Queued()
        world.enter()
        _, answers = world.enter()
        assert not isinstance(answers, list)
        task = asyncio.ensure_future(answers)
        await asyncio.sleep(0)
        world.flow.close()
        assert first(await task).immediate_response.status.code == 503
        _, late = world.enter()
        assert isinstance(late, list)
        assert first(late).immediate_response.status.code == 503

    run_virtually(work())


@pytest.mark.parametrize("answering", [False, True])
def test_a_sheddable_request_in_flight_is_ended_for_a_more_important_one(answering: bool) -> None:
    async def work() -> None:
        world = Queued(evict=True)
        pushed: list[bytes] = []
        victim, _ = world.enter(**{"x-llm-d-inference-objective": "batch"})
        victim.push = pushed.extend
        if answering:
            said(victim, response_headers(**{"content-type": "text/event-stream"}))
            said(victim, response_body(b"data: 1\n\n"))
        _, answers = world.enter()
        assert not isinstance(answers, list)
        assert first(await answers).HasField("request_headers")
        told = first(pushed).immediate_response
        assert (told.status.code, told.body) == (429, b"request evicted by flow control")
        assert victim.over
        assert [outcome.cause for outcome in world.notes.all("ended")] == ["evicted"]
        assert world.notes.all("failed") == [], "it was not the endpoint that ended it"

    run_virtually(work())


def test_a_response_that_is_complete_is_not_ended_any_more() -> None:
    async def work() -> None:
        world = Queued(evict=True)
        pushed: list[bytes] = []
        victim, _ = world.enter(**{"x-llm-d-inference-objective": "batch"})
        victim.push = pushed.extend
        said(victim, response_headers())
        said(victim, response_body(b"{}", end=True))
        _, answers = world.enter()
        assert isinstance(answers, list)
        assert not pushed

    run_virtually(work())
