"""Which bands there are: those configured, band 0, those of known objectives, and any a request asked for lately."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from epp.flow.band import Band
from epp.flow.policies import Failed, Fairness, Limits, Ordering
from epp.flow.settings import BandRules, FlowRules

IDLE_S = 600.0
"""A band that nothing speaks for goes after so long without a request."""

MOST_IDLE = 50
"""Of such bands; beyond them who was idle for longest goes at once, since each request looks at all bands."""


class Bands:
    """All bands, highest priority first."""

    def __init__(self, rules: FlowRules, failed: Failed) -> None:
        self._rules = rules
        self._failed = failed
        self._known: frozenset[int] = frozenset()
        self.by_priority: dict[int, Band] = {}
        self.order: tuple[Band, ...] = ()
        self.priorities: tuple[int, ...] = ()
        self.limits = Limits(rules.usage_limit, failed)
        self._make(self._lasting())

    def __iter__(self) -> Iterator[Band]:
        return iter(self.order)

    def at(self, priority: int) -> Band:
        """The band of a priority, made from the template if there is none."""
        band = self.by_priority.get(priority)
        if band is None:
            self._make([priority])
            band = self.by_priority[priority]
        return band

    def know(self, priorities: Iterable[int], now: float) -> None:
        """The priorities of all objectives: these have bands from now on."""
        before, self._known = self._known, frozenset(priorities)
        for priority in before - self._known:
            self.by_priority[priority].used_at = now
        self._make(self._lasting())
        idle = [band for band in self._passing() if not band.waiting]
        for band in sorted(idle, key=lambda band: band.used_at)[:-MOST_IDLE]:
            del self.by_priority[band.priority]
        self._sort()

    def use(self, rules: FlowRules) -> None:
        """New rules for all bands. Requests stay where they are unless their band has other policies."""
        self._rules = rules
        self.limits = Limits(rules.usage_limit, self._failed)
        for priority, band in self.by_priority.items():
            band.rules, before = rules.band(priority), band.rules
            if not _same_policies(band.rules, before):
                self.by_priority[priority] = self._moved(band)
        self._make(self._lasting())

    def collect(self, now: float) -> bool:
        """Drop bands idle for IDLE_S that nothing speaks for; whether there are others to be looked at later."""
        passing = self._passing()
        for band in passing:
            if not band.waiting and now - band.used_at >= IDLE_S:
                del self.by_priority[band.priority]
        self._sort()
        return any(band.priority in self.by_priority for band in passing)

    def _passing(self) -> list[Band]:
        """Those that nothing speaks for."""
        lasting = self._lasting()
        return [band for band in self.order if band.priority not in lasting]

    def _lasting(self) -> set[int]:
        return {0, *self._known, *[rules.priority for rules in self._rules.bands]}

    def _make(self, priorities: Iterable[int]) -> None:
        for priority in priorities:
            if priority not in self.by_priority:
                self.by_priority[priority] = self._made(self._rules.band(priority))
        self._sort()

    def _made(self, rules: BandRules) -> Band:
        return Band(rules, Fairness(rules.fairness, self._failed), Ordering(rules.ordering, self._failed))

    def _moved(self, band: Band) -> Band:
        made = self._made(band.rules)
        for ticket in list(band.waiting.values()):
            band.drop(ticket)
            ticket.ttl_s = self._rules.ttl_s
            made.put(ticket)
        return made

    def _sort(self) -> None:
        self.priorities = tuple(sorted(self.by_priority, reverse=True))
        self.order = tuple([self.by_priority[priority] for priority in self.priorities])


def _same_policies(one: BandRules, other: BandRules) -> bool:
    """An instance that a reload hands over goes on, and so does what it has noted."""
    return one.fairness.instance is other.fairness.instance and one.ordering.instance is other.ordering.instance
