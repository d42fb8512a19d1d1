"""Whose turn it is among the flows of a band: the best request's, each in turn, or whoever got least so far."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from epp import Band, Flow, Item


class GlobalStrictFairnessPolicy:
    """The flow whose head comes first in the band's order: who asks does not count."""

    def turn(self, band: Band, now: float) -> Flow | None:
        return band.best()


class RoundRobinFairnessPolicy:
    """The flows in turn, by their names, one request each."""

    def __init__(self) -> None:
        self._ids: dict[int, list[str]] = {}
        """By priority: names of the flows that have requests, sorted."""
        self._last: dict[int, str] = {}
        """By priority: whose turn it was."""

    def turn(self, band: Band, now: float) -> Flow | None:
        ids = self._ids[band.priority]
        after = bisect_right(ids, self._last.get(band.priority, ""))
        return band.flows[ids[after if after < len(ids) else 0]]

    def queued(self, flow: Flow, item: Item) -> None:
        if len(flow) == 1:
            insort(self._ids.setdefault(flow.priority, []), flow.id)

    def dispatched(self, flow: Flow, item: Item) -> None:
        self._last[flow.priority] = flow.id
        self.dropped(flow, item)

    def dropped(self, flow: Flow, item: Item) -> None:
        if not len(flow):
            ids = self._ids[flow.priority]
            del ids[bisect_left(ids, flow.id)]

    def state(self) -> dict[str, object]:
        return {"flows": sum(map(len, self._ids.values()))}
