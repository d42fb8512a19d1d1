"""The queue while configurations come and go, and how it is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from epp.config import Built
from epp.flow.ticket import DISPATCHED, QUEUED, Ticket
from epp.obs.metrics import Metrics, new_registry
from epp.obs.metrics_flow import FlowMetrics
from epp.pool.table import Pool
from epp.rewrites import Steering
from epp.testing import request
from epp.turnstile import Turnstile
from epp.types import Change, Endpoint
from tests.config_kit import made

ONE = """
plugins: [{type: concurrency-detector, name: one, parameters: {maxConcurrency: 1}}]
flowControl: {saturationDetector: {pluginRef: one}}
"""
OPEN, SHUT = made(f"featureGates: [flowControl]\n{ONE}"), made(ONE)


class World:
    """A pool of one endpoint that takes one request."""

    def __init__(self, built: Built) -> None:
        self.pool = Pool()
        self.pool.apply(Change((Endpoint("a", "10.0.0.1", 8000),)))
        self.metrics = Metrics(new_registry())
        self.turnstile = Turnstile(self.pool, FlowMetrics(self.metrics, "pool", self.failed), 2.0)
        self.turnstile.use(built)
        self.went: list[str] = []

    def failed(self, plugin: str, error: BaseException) -> None:
        raise error

    def enter(self, name: str, **fields: Any) -> Ticket:
        assert self.turnstile.queueing is not None
        ticket = self.turnstile.queueing.flow.enter(
            request(id=name, fairness_id="f", **fields),
            10,
            self._go(name),
            lambda refusal: self.went.append(repr(refusal)),
        )
        if ticket.state is DISPATCHED:
            self._go(name)()
        return ticket

    def _go(self, name: str) -> Callable[[], None]:
        def go() -> None:
            self.went.append(name)
            self.pool.ledger.charge("default/a")

        return go


def test_a_gate_that_shuts_lets_all_go_who_wait() -> None:
    async def work() -> None:
        world = World(OPEN)
        world.enter("a")
        assert [world.enter(name).state for name in "bc"] == [QUEUED, QUEUED]
        world.turnstile.use(SHUT)
        await asyncio.sleep(0)
        assert world.went == ["a", "b", "c"]
        assert world.turnstile.queueing is None
        assert world.turnstile.state()["gate"] == "shut"

    asyncio.run(work())


def test_one_that_opens_again_has_the_queue_it_had() -> None:
    async def work() -> None:
        world = World(OPEN)
        before = world.turnstile.queueing
        world.turnstile.use(SHUT)
        world.turnstile.use(OPEN)
        assert world.turnstile.queueing is before
        world.enter("a")
        assert world.enter("b").state is QUEUED
        world.turnstile.close()

    asyncio.run(work())


def test_a_configuration_without_the_gate_makes_no_queue() -> None:
    world = World(SHUT)
    assert world.turnstile.queueing is None
    world.turnstile.wake()
    world.turnstile.close()
    assert world.turnstile.state() == {
        "gate": "shut",
        "saturation": {"decode": 0.0, "effective": 0.0},
        "detector": "one",
    }


def test_all_that_one_turn_of_the_loop_brings_wakes_the_queue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        world = World(OPEN)
        assert world.turnstile.queueing is not None
        flow, times = world.turnstile.queueing.flow, []
        await asyncio.sleep(0)
        monkeypatch.setattr(flow, "changed", lambda: times.append(1))
        for _ in range(5):
            world.turnstile.wake()
        await asyncio.sleep(0)
        world.turnstile.wake()
        await asyncio.sleep(0)
        assert len(times) == 2

    asyncio.run(work())


def test_priorities_of_objectives_have_their_bands_before_anybody_comes() -> None:
    async def work() -> None:
        world = World(OPEN)
        world.turnstile.steer(Steering(objectives={"batch": -1, "chat": 5}))
        bands = world.turnstile.state()["queue"]["bands"]
        assert [band["priority"] for band in bands] == [5, 0, -1]
        world.turnstile.close()

    asyncio.run(work())


def test_the_gauges_tell_how_full_it_is() -> None:
    async def work() -> None:
        world = World(OPEN)
        world.enter("a")
        world.enter("b")
        world.turnstile.tell()
        cells = world.metrics.families.cells
        assert cells("flow_control_pool_saturation").values["pool", "effective"].value == 1.0
        assert cells("flow_control_capacity_utilization_requests").values["0", "pool"].value == 1 / 5000
        world.turnstile.close()

    asyncio.run(work())
