"""The queue: who may go now goes; who may not waits, in order, for as long as it may.

Everything happens on an event that the caller tells of, or on a timer at the exact time; nothing is polled. Pure: time
and timers are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from epp.flow import outcomes
from epp.flow.band import Band, oldest
from epp.flow.bands import IDLE_S, Bands
from epp.flow.capacity import Room
from epp.flow.eviction import InFlight, Later, Timer
from epp.flow.observe import FlowObserver
from epp.flow.pace import Pace
from epp.flow.patience import Patience
from epp.flow.report import report
from epp.flow.settings import FlowRules
from epp.flow.ticket import DISPATCHED, OVER, QUEUED, Ticket
from epp.types import Refused, Request

ASK_AGAIN_S = 0.05
A_TURN = 64
"""So many go before others get their turn of the event loop: each is decided meanwhile, which takes a while."""


class FlowControl:
    """One pool's queue."""

    def __init__(
        self,
        rules: FlowRules,
        *,
        now: Callable[[], float],
        saturation: Callable[[], float],
        pool_size: Callable[[], int],
        later: Later,
        observer: FlowObserver,
    ) -> None:
        self._rules = rules
        self._now = now
        self._saturation = saturation
        self._pool_size = pool_size
        self._later = later
        self._observer = observer
        self._bands = Bands(rules, observer.failed)
        self._inflight = InFlight(now, later, observer, self.changed)
        self._pace = Pace()
        self._room = Room()
        self._number = 0
        self._patience = Patience(rules, not pool_size(), now(), later, self._expire)
        self._collecting: Timer | None = None
        self._asking: Timer | None = None
        self._pumping = False
        self._again = False
        self._closed = ""

    def enter(self, request: Request, size: int, go: Callable[[], None], refuse: Callable[[Refused], None]) -> Ticket:
        """A request asks to go; Refused if it may neither go nor wait.

        If it may go at once, its ticket is DISPATCHED and nothing is called. Else exactly one of `go` and `refuse` is
        called later, unless the ticket is cancelled first. `go` must charge what the request uses before it returns.
        """
        now = self._now()
        priority = request.priority
        self._number += 1
        ticket = Ticket(
            request, size, priority, request.fairness_id, self._number, now, self._rules.ttl_s, go, refuse, self
        )
        if self._closed:
            self._turn_away(ticket, outcomes.REJECTED_OTHER, outcomes.closing(False, self._closed))
        self._look(now)
        band = self._bands.by_priority.get(priority)
        if band is None:
            band = self._bands.at(priority)
            self._watch_bands()
        band.put(ticket)
        self._room.requests += 1
        self._room.bytes += size
        try:
            self._pump(ticket)
        except BaseException as bug:  # noqa: BLE001 - perhaps in somebody else's `go`; let out again
            # Who is told of it must not wait as well.
            self._abandon(band, ticket)
            self._turn_away(ticket, outcomes.REJECTED_OTHER, bug)
        if ticket.state is QUEUED:
            self._stay(band, ticket)
        return ticket

    def changed(self) -> None:
        """Something that may free a place has happened: all go that may."""
        self._look(self._now())
        self._pump()

    def objectives(self, priorities: Iterable[int]) -> None:
        """The priorities that requests are known to come with; their bands exist from now on."""
        self._bands.know(priorities, self._now())
        self._watch_bands()

    def use(self, rules: FlowRules) -> None:
        """Other rules from now on. Who waits stays, in its old order of arrival, even over a new limit."""
        self._rules = rules
        self._bands.use(rules)
        self._patience.use(rules)
        self._patience.arm(oldest(self._bands), self._now())
        self._watch_bands()
        self.changed()

    def close(self, why: str = outcomes.NOT_RUNNING) -> None:
        """Refuse all who wait, and whoever comes from now on."""
        self._closed = why
        for band in self._bands:
            for ticket in list(band.waiting.values()):
                self._refuse(ticket, outcomes.EVICTED_OTHER, outcomes.closing(True, why))
        self._patience.stop()
        for timer in (self._collecting, self._asking):
            if timer is not None:
                timer.cancel()

    def retry_after_s(self, priority: int) -> float | None:
        """When what waits now, of this priority and above, will have gone at the present pace; None if none goes."""
        ahead = sum([len(band) for band in self._bands if band.priority >= priority])
        return self._pace.clears_in_s(ahead, self._now())

    def withdrawn(self, ticket: Ticket) -> None:
        """Ticket.cancel."""
        now = self._now()
        band = self._bands.by_priority[ticket.priority]
        band.drop(ticket)
        self._leave(ticket, outcomes.EVICTED_CANCELLED, now)
        if self._room.requests and not band.waiting:
            # Who waited behind it may have a higher ceiling; nobody else's turn begins inside of a cancel.
            self._later(0.0, self.changed)

    def returned(self, ticket: Ticket) -> None:
        """Ticket.ended."""
        ticket.state = OVER
        self._inflight.remove(ticket)

    def state(self) -> dict[str, Any]:  # JSON-like
        """What waits where, and why, for people to look at."""
        return {
            "requests": self._room.requests,
            "bytes": self._room.bytes,
            "max_requests": self._rules.max_requests or None,
            "max_bytes": self._rules.max_bytes or None,
            "saturation": self._saturation(),
            "pool_empty": self._patience.empty,
            "closed": bool(self._closed),
            "in_flight": self._inflight.state(),
            "bands": report(self._bands, self._now()),
        }

    def _pump(self, entering: Ticket | None = None) -> None:
        """Dispatch as long as somebody may go; `entering` goes by returning, and is charged only after that."""
        if self._pumping:
            self._again = True
            return
        self._pumping, self._again, done = True, False, False
        soon_s = ASK_AGAIN_S  # after a bug, which may be one that comes again
        try:
            for _ in range(A_TURN):
                began = self._now()
                ticket = self._next(began)
                done = ticket is None or ticket is entering
                if ticket is not None:
                    self._dispatch(ticket, began, not done)
                self._observer.cycle(self._now() - began)
                if ticket is None or done:
                    break
                ticket.go()
            soon_s = 0.0
        finally:
            self._pumping = False
            if not done or (self._again and self._room.requests):
                self._later(soon_s, self.changed)

    def _next(self, now: float) -> Ticket | None:
        """Who goes next. A band held back by its ceiling holds back those below it; one without requests does not."""
        if not self._room.requests or self._patience.empty:
            return None
        saturation = self._saturation()
        ceilings = self._bands.limits.ceilings(saturation, self._bands.priorities)
        for band, ceiling in zip(self._bands.order, ceilings, strict=True):
            if not band.waiting:
                continue
            if saturation >= ceiling:
                self._held(saturation, ceilings)
                break
            flow = band.fairness.turn(band, now)
            if flow is not None:
                return flow.head
        if saturation < 1.0 and self._asking is None:
            # Policies hold back who waits, though there is room: they may count, or look at the clock.
            self._asking = self._later(ASK_AGAIN_S, self._ask_again)
        return None

    def _ask_again(self) -> None:
        self._asking = None
        self.changed()

    def _held(self, saturation: float, ceilings: Iterable[float]) -> None:
        """Somebody waits for a place: the highest band that may have one at all is worth ending others for."""
        if not self._rules.evict:
            return
        for band, ceiling in zip(self._bands.order, ceilings, strict=True):
            if band.waiting and 0 < ceiling <= saturation:
                self._inflight.make_room(band.priority, saturation, ceiling, self._rules.evict_grace_s)
                return

    def _dispatch(self, ticket: Ticket, now: float, was_queued: bool) -> None:
        self._bands.by_priority[ticket.priority].dispatch(ticket)
        self._room.requests -= 1
        self._room.bytes -= ticket.size
        ticket.state = DISPATCHED
        self._inflight.add(ticket)
        self._pace.note(now)
        self._observer.left(outcomes.DISPATCHED, ticket, now - ticket.queued_at, was_queued)

    def _stay(self, band: Band, ticket: Ticket) -> None:
        """It may not go; let it wait if there is room, or if less important ones can be sent away for it."""
        displaced = self._room.displaced(self._bands, band, ticket, self._rules)
        if displaced is None:
            self._abandon(band, ticket)
            if self._patience.empty:
                self._turn_away(ticket, outcomes.REJECTED_NO_ENDPOINTS, outcomes.full_and_empty())
            self._turn_away(ticket, outcomes.REJECTED_CAPACITY, outcomes.full(self.retry_after_s(ticket.priority)))
        self._observer.queued(ticket, self._now() - ticket.queued_at)
        for other in displaced or ():
            refusal = outcomes.displaced(self.retry_after_s(other.priority))
            self._refuse(other, outcomes.EVICTED_OTHER, refusal)
        if not self._patience.armed:
            self._patience.arm(oldest(self._bands), self._now())

    def _abandon(self, band: Band, ticket: Ticket) -> None:
        """Take out one that was put in to see whether it may go."""
        if ticket.state is QUEUED:
            band.drop(ticket)
            self._room.requests -= 1
            self._room.bytes -= ticket.size

    def _turn_away(self, ticket: Ticket, outcome: str, why: BaseException) -> NoReturn:
        ticket.state = OVER
        self._observer.left(outcome, ticket, self._now() - ticket.queued_at, False)
        raise why

    def _refuse(self, ticket: Ticket, outcome: str, refusal: Refused) -> None:
        if ticket.state is not QUEUED:
            return
        self._bands.by_priority[ticket.priority].drop(ticket)
        self._leave(ticket, outcome, self._now())
        ticket.refuse(refusal)

    def _leave(self, ticket: Ticket, outcome: str, now: float) -> None:
        self._room.requests -= 1
        self._room.bytes -= ticket.size
        ticket.state = OVER
        self._observer.left(outcome, ticket, now - ticket.queued_at, True)

    def _look(self, now: float) -> None:
        """Whether the pool is empty may have changed."""
        empty = not self._pool_size()
        if empty is not self._patience.empty:
            self._patience.turn(empty, now)
            self._patience.arm(oldest(self._bands), now)

    def _expire(self) -> None:
        """Refuse who has waited as long as it may."""
        now = self._now()
        self._look(now)
        while (ticket := oldest(self._bands)) is not None and self._patience.due(ticket, now):
            if self._patience.empty:
                self._refuse(ticket, outcomes.EVICTED_NO_ENDPOINTS, outcomes.expired_and_empty())
            else:
                refusal = outcomes.expired(self.retry_after_s(ticket.priority))
                self._refuse(ticket, outcomes.EVICTED_TTL, refusal)
        self._patience.arm(oldest(self._bands), now)
        self._pump()

    def _watch_bands(self) -> None:
        """Look later for bands that have become needless."""
        if self._collecting is None:
            self._collecting = self._later(IDLE_S, self._collect)

    def _collect(self) -> None:
        self._collecting = None
        if self._bands.collect(self._now()):
            self._watch_bands()
