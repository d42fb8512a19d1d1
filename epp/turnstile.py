"""The queue of one picker: there while the gate flowControl is open, and as long after as somebody waits in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from epp.admission import Queueing
from epp.config import Built
from epp.flow.control import FlowControl
from epp.flow.eviction import Timer
from epp.flow.saturation import Saturation
from epp.obs.metrics_flow import FlowMetrics
from epp.pool.table import Pool
from epp.rewrites import Steering


class Turnstile:
    """Decides who passes to the decision, and when; `queueing` is None while the gate is shut."""

    def __init__(self, pool: Pool, metrics: FlowMetrics, staleness_s: float) -> None:
        self._pool = pool
        self._metrics = metrics
        self._staleness_s = staleness_s
        self.saturation = Saturation(lambda: pool.snapshot(time.monotonic()), None, metrics.failed)
        self.queueing: Queueing | None = None
        self._queue: Queueing | None = None
        """The same, and after the gate was shut the one that may still hold somebody."""
        self._priorities: tuple[int, ...] = ()

    def use(self, built: Built) -> None:
        """Another configuration is in force."""
        self.saturation.detector = built.detector
        rules = built.flow
        if rules is None:
            self.queueing = None
        elif self._queue is None:
            flow = FlowControl(
                rules,
                now=time.monotonic,
                saturation=self._saturation,
                pool_size=lambda: len(self._pool),
                later=_later,
                observer=self._metrics,
            )
            self.queueing = self._queue = Queueing(flow, _soon)
            flow.objectives(self._priorities)
        else:
            self.queueing = self._queue
            self._queue.flow.use(rules)
        if self._queue is not None:
            self._queue.evicts = rules is not None and rules.evict
            self.wake()

    def steer(self, steering: Steering) -> None:
        """Other objectives are known."""
        self._priorities = tuple(set(steering.objectives.values()))
        if self._queue is not None:
            self._queue.flow.objectives(self._priorities)

    def wake(self) -> None:
        """Something that may free a place has happened."""
        if self._queue is not None:
            self._queue.wake()

    def close(self) -> None:
        """Nobody waits any longer, nor comes in."""
        if self._queue is not None:
            self._queue.flow.close()

    def state(self) -> dict[str, Any]:  # JSON
        """For /debug/queue."""
        stages = self.saturation.stages()
        detector = self.saturation.detector
        told = {"gate": "open" if self.queueing is not None else "shut", "saturation": stages}
        told["detector"] = detector.name if detector is not None else ""
        return told if self._queue is None else {**told, "queue": self._queue.flow.state()}

    def tell(self) -> None:
        """Bring the gauges up to date."""
        endpoints = self._pool.snapshot(time.monotonic())
        stale = len(endpoints) - int(endpoints.fresh(self._staleness_s).sum())
        detector = self.saturation.detector
        self._metrics.pool(self.saturation.stages(), stale, detector.name if detector is not None else "")
        if self._queue is not None:
            self._metrics.capacity(self._queue.flow.state())

    def _saturation(self) -> float:
        # With the gate shut who still waits goes.
        return self.saturation() if self.queueing is not None else 0.0


def _soon(call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(call)


def _later(delay_s: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, call)
