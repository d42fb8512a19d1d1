"""Requests in flight, and the ending of sheddable ones where more important ones wait for their places.

Nothing new is ended until all that was has been confirmed and its effect shows in the saturation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from math import ceil
from typing import Protocol

from epp.flow.observe import FlowObserver
from epp.flow.ticket import Ticket

AT_ONCE = 2
"""So many are ended at most before it is looked at what that brought."""
UNCONFIRMED_S = 10.0
"""After this long an ended request counts as gone."""


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""Calls back after so many seconds; an event loop's call_later."""


class InFlight:
    """Dispatched requests that are not over."""

    def __init__(
        self, now: Callable[[], float], later: Later, observer: FlowObserver, wake: Callable[[], None]
    ) -> None:
        self.count = 0
        self._now = now
        self._later = later
        self._observer = observer
        self._wake = wake
        self._sheddable: dict[int, OrderedDict[int, Ticket]] = {}
        """By priority, in order of dispatch; without those being ended."""
        self._ending: dict[int, tuple[Ticket, float]] = {}
        """Told to end at that time, and not over."""
        self._settling = False
        """All are over, but the saturation may not show it yet."""
        self._grace_s = 0.0

    def add(self, ticket: Ticket) -> None:
        self.count += 1
        if ticket.priority < 0:
            self._sheddable.setdefault(ticket.priority, OrderedDict())[ticket.number] = ticket

    def remove(self, ticket: Ticket) -> None:
        self.count -= 1
        if ticket.number in self._ending:
            self._confirm(ticket.number, True)
            return
        alike = self._sheddable.get(ticket.priority)
        if alike is not None:
            alike.pop(ticket.number, None)
            if not alike:
                del self._sheddable[ticket.priority]

    def make_room(self, priority: int, saturation: float, ceiling: float, grace_s: float) -> None:
        """End as many as the gap to the ceiling asks for, below `priority`, the least important and newest first."""
        if self._ending or self._settling:
            return
        # Each request in flight stands for an equal part of the saturation.
        wanted = max(1, ceil((saturation - ceiling) * self.count / saturation)) if saturation > 0 else 1
        victims = list(islice(self._victims(priority), min(wanted, AT_ONCE)))
        if not victims:
            return
        now = self._now()
        self._grace_s = grace_s
        for victim in victims:
            self._sheddable[victim.priority].pop(victim.number)
            if not self._sheddable[victim.priority]:
                del self._sheddable[victim.priority]
            self._ending[victim.number] = (victim, now)
        numbers = tuple(self._ending)
        self._later(UNCONFIRMED_S, lambda: self._give_up(numbers))
        for victim in victims:
            self._observer.evicting(victim, wanted, len(self._ending))
            if victim.evict is not None and victim.evict() is False and victim.number in self._ending:
                self._confirm(victim.number, False)

    def _victims(self, below: int) -> Iterator[Ticket]:
        for priority in sorted(self._sheddable):
            if priority >= below:
                return
            yield from [ticket for ticket in reversed(self._sheddable[priority].values()) if ticket.evict is not None]

    def _give_up(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            if number in self._ending:
                self._confirm(number, False)

    def _confirm(self, number: int, confirmed: bool) -> None:
        ticket, began = self._ending.pop(number)
        self._observer.evicted(ticket, self._now() - began, confirmed, len(self._ending))
        if not self._ending:
            self._settling = True
            self._later(self._grace_s, self._settled)

    def _settled(self) -> None:
        self._settling = False
        self._wake()

    def state(self) -> dict[str, int]:
        """For people to look at."""
        sheddable = sum(map(len, self._sheddable.values()))
        return {"requests": self.count, "sheddable": sheddable, "ending": len(self._ending)}
