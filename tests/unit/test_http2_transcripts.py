"""What real Envoys sent, through both transports, and to another process: the same answers and the same end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest
import uvloop

from epp.extproc.http2_server import Http2Server
from epp.extproc.server import GrpcServer
from epp.extproc.service import METHOD
from tests.transcripts import Transcript, every

from . import kit
from .test_http2_server import Ready, Watch
from .workers_kit import pair

LIMITS = {"max_recv_bytes": 1 << 25, "max_send_bytes": 1 << 30}
Outcome = tuple[list[bytes], grpc.StatusCode, str]
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]


@asynccontextmanager
async def served(transport: str) -> AsyncIterator[int]:
    world, stack = kit.World(), AsyncExitStack()
    open_dialogue = world.dialogue
    if transport == "h2, decided elsewhere":
        open_dialogue = (await stack.enter_async_context(pair(world))).dialogue
    if transport == "grpcio":
        server: Http2Server | GrpcServer = GrpcServer(world.dialogue, Watch(), Ready(), **LIMITS)  # type: ignore[arg-type]
    else:
        server = Http2Server(open_dialogue, Watch(), Ready(), max_waiting_bytes=1 << 30, **LIMITS)  # type: ignore[arg-type]
    port, _ = await server.start(0, 0, None)
    try:
        yield port
    finally:
        await server.stop(0)
        await stack.aclose()
        assert (world.held.held, world.pool.ledger.requests) == (0, 0)


def replay(channel: grpc.Channel, transcript: Transcript) -> Outcome:
    call = channel.stream_stream(METHOD)(iter(transcript.from_envoy()), timeout=30)
    answers = []
    try:
        for answer in call:
            answers.append(answer)  # noqa: PERF402 - what came before an error counts
    except grpc.RpcError:
        pass
    return answers, call.code(), call.details()


async def outcomes(transport: str) -> dict[str, Outcome]:
    async with asyncio.timeout(120), served(transport) as port:
        with grpc.insecure_channel(f"127.0.0.1:{port}", OPTIONS) as channel:
            return {str(one): await asyncio.to_thread(replay, channel, one) for one in every()}


@pytest.mark.parametrize("transport", ["h2", "h2, decided elsewhere"])
def test_all_ways_mean_the_same(transport: str) -> None:
    ours, theirs = uvloop.run(outcomes(transport)), uvloop.run(outcomes("grpcio"))
    assert len(theirs) > 80
    assert {code for _, code, _ in theirs.values()} >= {grpc.StatusCode.OK}
    assert ours == theirs
