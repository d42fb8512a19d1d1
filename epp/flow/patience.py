"""How long requests may still wait: one budget while the pool has endpoints, another while it has none."""

from __future__ import annotations

from collections.abc import Callable

from epp.flow.eviction import Later, Timer
from epp.flow.settings import FlowRules
from epp.flow.ticket import Ticket

LEAST_TIMER_S = 0.001
"""No timer is shorter: an event loop's clock is hardly finer."""
DUE_S = 1e-6
"""What is due within this is due: sums of seconds are not exact."""


class Patience:
    """Counts from when a request came, or from when the pool last got its first endpoint or lost its last.

    As everybody has the same budget, whoever came first is due first: one timer, for that one, is enough.
    """

    def __init__(self, rules: FlowRules, empty: bool, now: float, later: Later, wake: Callable[[], None]) -> None:
        self.empty = empty
        """Whether the pool has no endpoints."""
        self._since = now
        self._later = later
        self._wake = wake
        self._timer: Timer | None = None
        self._ttl_s, self._empty_ttl_s = rules.ttl_s, rules.empty_ttl_s

    @property
    def armed(self) -> bool:
        return self._timer is not None

    def turn(self, empty: bool, now: float) -> None:
        """The pool has become empty or ceased to be: all budgets begin anew."""
        self.empty, self._since = empty, now
        self.stop()

    def use(self, rules: FlowRules) -> None:
        self._ttl_s, self._empty_ttl_s = rules.ttl_s, rules.empty_ttl_s
        self.stop()

    def arm(self, first: Ticket | None, now: float) -> None:
        """Wake when the one that came first is due, unless a timer runs: it is then early, and arms another."""
        budget_s = self._empty_ttl_s if self.empty else self._ttl_s
        if first is None or not budget_s or self._timer is not None:
            return
        delay_s = max(first.queued_at, self._since) + budget_s - now
        self._timer = self._later(max(delay_s, LEAST_TIMER_S), self._ring)

    def due(self, ticket: Ticket, now: float) -> bool:
        budget_s = self._empty_ttl_s if self.empty else self._ttl_s
        return budget_s > 0 and max(ticket.queued_at, self._since) + budget_s <= now + DUE_S

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self._wake()
