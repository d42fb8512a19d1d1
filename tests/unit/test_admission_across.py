"""A request at the queue, decided in its stream's process or in another: the same answers, and nothing left behind."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from epp.extproc.dialogue import Dialogue
from tests.unit.kit import request_body, request_headers
from tests.unit.test_admission import BODY, Queued, first
from tests.unit.virtual_time import VirtualLoop, _Jump
from tests.unit.workers_kit import Pair, pair

Answer = asyncio.Task[ProcessingResponse]
BATCH = {"x-llm-d-inference-objective": "batch"}


class SocketsFirst(_Jump):
    """Time passes only when no socket has anything to read: what is written to a pair is there at once."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(0) or super().select(timeout)


class Loop(VirtualLoop):
    def __init__(self) -> None:
        self._jump = SocketsFirst()
        asyncio.SelectorEventLoop.__init__(self, self._jump)


class Edges:
    """Streams of a queue: of its own process where there are no pairs."""

    def __init__(self, world: Queued, pairs: list[Pair]) -> None:
        self.world, self.pairs = world, pairs

    async def enter(self, edge: int = 0, **headers: str) -> tuple[Dialogue, Answer]:
        dialogue = self.pairs[edge].dialogue() if self.pairs else self.world.dialogue()
        task = asyncio.ensure_future(self._ask(dialogue, headers))
        await quiet()
        return dialogue, task

    async def _ask(self, dialogue: Dialogue, headers: dict[str, str]) -> ProcessingResponse:
        dialogue.receive(request_headers(**headers).SerializeToString())
        dialogue.sent()
        answers = dialogue.receive(request_body(BODY).SerializeToString())
        wires = await answers if isinstance(answers, Awaitable) else answers
        dialogue.sent()
        return first(wires)


async def quiet() -> None:
    """Everything said so far was heard: virtual time waits for the sockets."""
    await asyncio.sleep(0.001)


def told(
    story: Callable[[Edges], Awaitable[None]], edges: int, make: Callable[..., Queued] = Queued, **more: Any
) -> None:
    async def work() -> None:
        world = make(**more)
        world.clock = asyncio.get_running_loop().time  # type: ignore[assignment]  # seconds, like the queue's
        async with AsyncExitStack() as stack:
            await story(Edges(world, [await stack.enter_async_context(pair(world)) for _ in range(edges)]))

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work())


both = pytest.mark.parametrize("edges", [0, 1], ids=["same-process", "across"])


@both
def test_a_request_goes_at_once_and_the_next_when_it_ends(edges: int) -> None:
    async def story(at: Edges) -> None:
        before, went = await at.enter()
        assert went.result().HasField("request_headers")
        _, waits = await at.enter()
        assert not waits.done()
        before.close("client-disconnect")
        assert (await waits).HasField("request_headers")

    told(story, edges)


@both
def test_a_client_that_is_gone_leaves_the_queue_at_once(edges: int) -> None:
    async def story(at: Edges) -> None:
        await at.enter()
        left, waits = await at.enter()
        assert at.world.flow.state()["requests"] == 1
        waits.cancel()
        left.close("client-disconnect")
        await quiet()
        assert at.world.flow.state()["requests"] == 0

    told(story, edges)


@both
def test_who_waited_too_long_is_told_why_and_when_to_try_again(edges: int) -> None:
    async def story(at: Edges) -> None:
        await at.enter()
        _, waits = await at.enter()
        refusal = (await waits).immediate_response
        headers = {one.header.key: one.header.raw_value for one in refusal.headers.set_headers}
        assert refusal.status.code == 429
        assert headers["x-llm-d-request-dropped-reason"] == b"rejected-ttl-expired"
        assert int(headers["retry-after"]) >= 1

    told(story, edges, ttl_s=5.0)


@both
def test_shutdown_refuses_who_waits_and_who_comes(edges: int) -> None:
    async def story(at: Edges) -> None:
        await at.enter()
        _, waits = await at.enter()
        at.world.flow.close()
        _, late = await at.enter()
        assert [(await one).immediate_response.status.code for one in (waits, late)] == [503, 503]

    told(story, edges)


@both
def test_a_sheddable_request_is_ended_for_a_more_important_one(edges: int) -> None:
    async def story(at: Edges) -> None:
        pushed: list[bytes] = []
        victim, _ = await at.enter(**BATCH)
        victim.push = pushed.extend
        _, waits = await at.enter()
        assert (await waits).HasField("request_headers")
        assert first(pushed).immediate_response.status.code == 429
        assert [outcome.cause for outcome in at.world.notes.all("ended")] == ["evicted"]

    told(story, edges, evict=True)
