"""How often which endpoint is scraped. Pure: time and chance are given, nothing waits here.

A scrape costs an engine about 10 ms of CPU and us a fraction of one, so an endpoint in use is read once a second, an
idle one every two, a failing one ever more rarely, and all of them together within a budget of our own CPU.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from epp.feeds import FeedError
from epp.units import duration

SHORTEST_S = 0.05
"""Upstream's floor for the scrape interval."""
BACK_OFF_S = 30.0
"""Longest wait after failures, unless the interval itself is longer."""
JITTER = 0.1
"""Share of the interval that is left to chance: intervals only grow by it, back-offs only shrink."""
FIRST_COST_S = 0.0004
"""What a scrape is taken to cost until one was measured."""
COST_WEIGHT = 1 / 32
"""Weight of the newest scrape in the running mean of the cost."""


def seconds(text: str) -> float:
    """A duration as Go writes it: 500ms, 2s, 1m30s. Raises FeedError."""
    try:
        return duration(text)
    except ValueError:
        raise FeedError(
            f"{text!r} is no duration; write a number with its unit (h, m, s, ms), such as 500ms or 2s"
        ) from None


@dataclass(frozen=True, slots=True)
class Pace:
    """The intervals wanted, and the share of a core they may cost."""

    busy_s: float = 1.0
    """Between two scrapes of an endpoint in use."""
    idle_s: float = 2.0
    budget_cores: float = 0.1

    @classmethod
    def of(cls, interval_s: float) -> Pace:
        """Endpoints in use every `interval_s` (SHORTEST_S at least), idle ones half as often."""
        busy_s = max(SHORTEST_S, interval_s)
        return cls(busy_s, 2 * busy_s)

    def stretch(self, busy: int, idle: int, cost_s: float) -> float:
        """The factor, 1 or more, by which intervals grow so that scrapes of `cost_s` each stay within the budget."""
        wanted = cost_s * (busy / self.busy_s + idle / self.idle_s)
        return max(1.0, wanted / self.budget_cores)


def next_due(sent_at: float, interval_s: float, failures: int, chance: float, *, spread: bool = False) -> float:
    """When to scrape again after one sent at `sent_at`; `failures` in a row until now, `chance` in [0, 1).

    `spread`: anywhere between one interval and two, so that endpoints that came together do not stay in step.
    """
    if not failures:
        return sent_at + interval_s * (1 + (chance if spread else JITTER * chance))
    back_off = min(BACK_OFF_S, interval_s * 2.0 ** min(failures, 16))
    return sent_at + max(interval_s, back_off * (1 - JITTER * chance))


@dataclass(slots=True)
class _Slot:
    """One endpoint in the schedule."""

    ticket: int = 0
    """Which entry of the heap is its own; all others are void."""
    busy: bool = True
    failures: int = 0
    in_step: bool = True
    """It may be in step with others: it is new, or failed last, as all do in an outage."""
    at_once: bool = True
    """Due as soon as the scrape under way is done."""


class Schedule:
    """The endpoints by when they are due. Between `due` and `done` an endpoint is under way and never due again."""

    def __init__(self, pace: Pace, chance: Callable[[], float]) -> None:
        self.cost_s = FIRST_COST_S
        """What a scrape costs us, running mean."""
        self._pace = pace
        self._chance = chance
        self._slots: dict[str, _Slot] = {}
        self._under_way: set[str] = set()
        self._heap: list[tuple[float, int, str]] = []
        self._tickets = 0
        self._busy = 0

    def __len__(self) -> int:
        return len(self._slots)

    def add(self, key: str, now: float) -> None:
        """Due at once; an endpoint already there starts anew."""
        self.remove(key)
        self._slots[key] = _Slot()
        self._busy += 1
        if key not in self._under_way:
            self._push(key, now)

    def remove(self, key: str) -> None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._busy -= slot.busy

    def due(self, now: float) -> list[str]:
        """Take out what is due; each must be given back by `done`."""
        found = []
        while (at := self.next_due()) is not None and at <= now:
            key = heapq.heappop(self._heap)[2]
            self._slots[key].at_once = False
            self._under_way.add(key)
            found.append(key)
        return found

    def done(self, key: str, *, sent_at: float, busy: bool, failed: bool) -> None:
        """The scrape of `key` is over."""
        self._under_way.discard(key)
        slot = self._slots.get(key)
        if slot is None:
            return
        if slot.at_once:
            self._push(key, sent_at)
            return
        self._busy += busy - slot.busy
        slot.busy = busy
        slot.failures = slot.failures + 1 if failed else 0
        interval_s, chance = self.interval_s(busy), self._chance()
        self._push(key, next_due(sent_at, interval_s, slot.failures, chance, spread=slot.in_step))
        slot.in_step = failed

    def spent(self, cost_s: float) -> None:
        """Learn what one more scrape cost."""
        self.cost_s += COST_WEIGHT * (cost_s - self.cost_s)

    @property
    def stretch(self) -> float:
        return self._pace.stretch(self._busy, len(self._slots) - self._busy, self.cost_s)

    def interval_s(self, busy: bool) -> float:
        """The interval in force."""
        return (self._pace.busy_s if busy else self._pace.idle_s) * self.stretch

    def next_due(self) -> float | None:
        """When something is due next; None = nothing waits."""
        while self._heap and not self._valid(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _valid(self, entry: tuple[float, int, str]) -> bool:
        slot = self._slots.get(entry[2])
        return slot is not None and slot.ticket == entry[1]

    def _push(self, key: str, at: float) -> None:
        self._tickets += 1
        self._slots[key].ticket = self._tickets
        heapq.heappush(self._heap, (at, self._tickets, key))
