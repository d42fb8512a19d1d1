"""Engines on a virtual clock."""

from __future__ import annotations

import math
from collections.abc import Callable

from sim.clock import Clock
from sim.engine import Engine
from sim.types import Event, Job


class VirtualEngine:
    """One engine whose events are told to `notice` at their time; `notice` may submit further jobs."""

    __slots__ = ("_armed_at", "_clock", "_notice", "engine")

    def __init__(self, clock: Clock, engine: Engine, notice: Callable[[Event], None]) -> None:
        self.engine = engine
        self._clock = clock
        self._notice = notice
        self._armed_at = math.inf

    def submit(self, job: Job) -> None:
        self.engine.submit(self._clock.now, job)
        self._arm()

    def cancel(self, job: Job) -> None:
        self.engine.cancel(self._clock.now, job)
        self._arm()

    def _arm(self) -> None:
        when = self.engine.wake_at
        if when < self._armed_at:
            self._armed_at = when
            self._clock.at(when, self._wake)

    def _wake(self) -> None:
        now = self._clock.now
        if now != self._armed_at:  # an earlier wake-up took the place of this one
            return
        self._armed_at = math.inf
        for event in self.engine.advance(now):
            self._notice(event)
        self._arm()
