"""The series of one kind of request: model asked for and sent, fairness id, priority."""

from __future__ import annotations

from epp.obs.series import Cell, Families, Histogram, Labels
from epp.types import Endpoint


class Flow:
    """Its series, each looked for once: hashing label values anew would be most of an observation's cost.

    A series begins when it is first wanted, so that none is told before there is something to tell.
    """

    __slots__ = ("_attempts", "_cells", "_families", "_histograms", "_inflight", "labels")

    def __init__(self, families: Families, labels: Labels) -> None:
        self.labels = labels
        """model_name, target_model_name, fairness_id, priority."""
        self._families = families
        self._cells: dict[str, Cell] = {}
        self._histograms: dict[str, Histogram] = {}
        self._attempts: dict[str, tuple[Endpoint, Cell]] = {}
        self._inflight: dict[str, tuple[Cell, Cell]] = {}

    def add(self, metric: str, amount: float = 1.0) -> None:
        cell = self._cells.get(metric)
        if cell is None:
            cell = self._cells[metric] = self._families.cells(metric).at(self.labels)
        cell.value += amount

    def observe(self, metric: str, value: float) -> None:
        (self._histograms.get(metric) or self.histogram(metric)).observe(value)

    def histogram(self, metric: str, more: str = "") -> Histogram:
        """`more` is the value of a fifth label, where the metric has one."""
        name = metric + more
        found = self._histograms.get(name)
        if found is None:
            labels = (*self.labels, more) if more else self.labels
            found = self._histograms[name] = self._families.histograms(metric).at(labels)
        return found

    def attempt(self, endpoint: Endpoint) -> None:
        """A request was sent to `endpoint`."""
        known = self._attempts.get(endpoint.key)
        if known is None or known[0] is not endpoint:
            labels = ("success", self.labels[1], endpoint.name, endpoint.namespace, str(endpoint.port))
            known = self._attempts[endpoint.key] = endpoint, self._families.cells("scheduler_attempts_total").at(labels)
        known[1].value += 1.0

    def inflight(self, endpoint: Endpoint, producer: str, requests: int, tokens: float) -> None:
        """So much more is in flight there."""
        cells = self._inflight.get(endpoint.key)
        if cells is None:
            labels = (endpoint.name, endpoint.namespace, producer, *self.labels[2:])
            found = [self._families.cells(metric).at(labels) for metric in ("inflight_requests", "inflight_tokens")]
            cells = self._inflight[endpoint.key] = found[0], found[1]
        cells[0].value += requests
        cells[1].value += tokens

    def forget(self) -> None:
        """Series of endpoints were dropped, or endpoints are gone."""
        self._attempts.clear()
        self._inflight.clear()
