"""An engine in real time: one timer, whatever the number of requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass

from sim.engine import Engine
from sim.latencies import Latencies
from sim.types import Happening, Job, Load

# uvloop's timers tick in whole milliseconds, rounded; half of one on top never fires early, which would spin.
_TIMER_SLACK_S = 0.0005


@dataclass(slots=True, eq=False)
class Ticket:
    """What someone waits for: the first token, each, the end."""

    job: Job
    begun: asyncio.Future[None]
    finished: asyncio.Future[None]
    on_tokens: Callable[[int], None] | None = None
    """Told the number of tokens so far, after each step."""


class LiveEngine:
    """Drives one engine by the clock of `loop`."""

    def __init__(self, engine: Engine, latencies: Latencies, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self.latencies = latencies
        self._loop = loop
        self._tickets: dict[Job, Ticket] = {}
        self._timer: asyncio.TimerHandle | None = None

    def load(self) -> Load:
        return self.engine.load(self._loop.time())

    def submit(self, job: Job) -> Ticket:
        """ValueError if the job can never fit."""
        self.engine.submit(self._loop.time(), job)
        ticket = self._tickets[job] = Ticket(job, self._loop.create_future(), self._loop.create_future())
        self._tick()
        return ticket

    def produced(self, ticket: Ticket) -> int:
        return self.engine.produced(ticket.job)

    def watch(self, ticket: Ticket, on_tokens: Callable[[int], None]) -> None:
        """Tell each token from now on, those so far at once."""
        on_tokens(self.produced(ticket))
        ticket.on_tokens = on_tokens
        self._arm()

    def drop(self, ticket: Ticket) -> None:
        """The client is gone, or has got everything."""
        if self._tickets.pop(ticket.job, None) is not None:
            self.engine.cancel(self._loop.time(), ticket.job)
            self._tick()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        watched = any(ticket.on_tokens for ticket in self._tickets.values())
        when = self.engine.next_token_at if watched else self.engine.wake_at
        if math.isfinite(when):
            self._timer = self._loop.call_at(when + _TIMER_SLACK_S, self._tick)

    def _tick(self) -> None:
        """Tell what happened, also what submit and drop made the engine catch up with."""
        finished = []
        for event in self.engine.advance(self._loop.time()):
            self.latencies.observe(event)
            ticket = self._tickets.get(event.job)
            if ticket is None:
                continue
            if event.what is Happening.FINISHED:
                finished.append(ticket)
            elif not ticket.begun.done():
                ticket.begun.set_result(None)
        for ticket in self._tickets.values():
            if ticket.on_tokens is not None:
                ticket.on_tokens(self.produced(ticket))
        for ticket in finished:
            del self._tickets[ticket.job]
            if not ticket.finished.done():
                ticket.finished.set_result(None)
        self._arm()
