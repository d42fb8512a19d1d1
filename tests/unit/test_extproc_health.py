"""Which health service name says what, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.extproc.health import HealthService
from epp.extproc.service import SERVICE
from epp.extproc.servicer import HealthServicer

T = TypeVar("T")
Answer = health_pb2.HealthCheckResponse
UP, DOWN, UNKNOWN = Answer.SERVING, Answer.NOT_SERVING, Answer.SERVICE_UNKNOWN
NAMES = ("", SERVICE, "readiness", "liveness", "inference-extension", "made-up")


def told(service: HealthService, *names: str) -> list[int]:
    async def ask(stub: health_pb2_grpc.HealthStub) -> list[int]:
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]

    return asyncio.run(served(service, ask))


def listed(service: HealthService) -> dict[str, int]:
    async def ask(stub: health_pb2_grpc.HealthStub) -> dict[str, int]:
        answer = await stub.List(health_pb2.HealthListRequest())
        return {name: status.status for name, status in answer.statuses.items()}

    return asyncio.run(served(service, ask))


async def served(service: HealthService, ask: Callable[[health_pb2_grpc.HealthStub], Awaitable[T]]) -> T:
    server = grpc.aio.server(handlers=[HealthServicer(service)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answer = await ask(health_pb2_grpc.HealthStub(channel))
    await server.stop(0)
    return answer


def health(ready: bool, reachable: bool, *, elected: bool) -> HealthService:
    return HealthService(lambda: ready, reachable=lambda: reachable, elected=elected)


@pytest.mark.parametrize(
    ("ready", "reachable", "elected", "expected"),
    [
        (True, True, False, [UP, UP, UP, UP, UP, UP]),
        (False, True, False, [DOWN, DOWN, DOWN, UP, UP, UP]),
        (False, False, False, [DOWN, DOWN, DOWN, UP, DOWN, DOWN]),
        (True, True, True, [UP, UP, UP, UP, UNKNOWN, UNKNOWN]),
        (False, False, True, [DOWN, DOWN, DOWN, UP, UNKNOWN, UNKNOWN]),
    ],
    ids=["ready", "plug-ins are not", "not ready", "leader", "follower"],
)
def test_each_name_has_its_meaning(ready: bool, reachable: bool, elected: bool, expected: list[int]) -> None:
    assert told(health(ready, reachable, elected=elected), *NAMES) == expected


def test_without_election_the_name_of_the_charts_is_listed_too() -> None:
    assert listed(health(True, True, elected=False)) == dict.fromkeys(
        ("", SERVICE, "readiness", "liveness", "inference-extension"), UP
    )


def test_with_election_only_the_names_that_mean_something_are_listed() -> None:
    assert listed(health(False, False, elected=True)) == {"": DOWN, SERVICE: DOWN, "readiness": DOWN, "liveness": UP}


def test_watch_is_not_offered() -> None:
    async def ask(stub: health_pb2_grpc.HealthStub) -> grpc.StatusCode:
        try:
            await stub.Watch(health_pb2.HealthCheckRequest()).read()
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    answer = asyncio.run(served(health(True, True, elected=False), ask))
    assert answer == grpc.StatusCode.UNIMPLEMENTED
