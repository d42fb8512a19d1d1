"""Plug-ins that take too long lose their place for a while, so that one slow vote does not slow every request."""

from __future__ import annotations

import resource
from collections.abc import Sequence

from msgspec import Struct

from epp.types import Spent

SLOW_S = 0.005
IN_A_ROW = 3
SUSPENDED_S = 30.0
NEEDED = "profile_handler"
"""The one kind nothing can be decided without."""


class Worked(Struct, frozen=True):
    """What a thread has done so far: tells a plug-in that was slow from one that was kept off the CPU."""

    cpu_s: float
    waits: int
    """Times it gave up the CPU of its own accord: it slept, or waited for a file or a socket."""

    def since(self, before: Worked, least_s: float) -> bool:
        """Whether it computed for `least_s` or waited at all since `before`."""
        return self.cpu_s - before.cpu_s >= least_s or self.waits > before.waits


def thread_worked() -> Worked:
    """Of the calling thread; costs less than a microsecond."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return Worked(used.ru_utime + used.ru_stime, used.ru_nvcsw)


class Suspensions:
    """Who is suspended until when. A plug-in over SLOW_S so many times in a row is left out for SUSPENDED_S."""

    def __init__(self) -> None:
        self._slow: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._names: frozenset[str] = frozenset()

    def names(self, now: float) -> frozenset[str]:
        """Those suspended at `now`."""
        if self._until and min(self._until.values()) <= now:
            self._until = {name: until for name, until in self._until.items() if until > now}
            self._names = frozenset(self._until)
        return self._names

    @property
    def watching(self) -> bool:
        """Whether somebody was too slow the last time, so that being quick now matters."""
        return bool(self._slow)

    def note(self, spent: Sequence[Spent], now: float) -> list[Spent]:
        """Count one decision's times; returns those that brought a suspension."""
        struck = []
        for one in spent:
            if one.seconds <= SLOW_S:
                if self._slow:
                    self._slow.pop(one.by, None)
                continue
            if one.place == NEEDED:
                continue
            self._slow[one.by] = self._slow.get(one.by, 0) + 1
            if self._slow[one.by] >= IN_A_ROW:
                del self._slow[one.by]
                self._until[one.by] = now + SUSPENDED_S
                struck.append(one)
        if struck:
            self._names = frozenset(self._until)
        return struck
