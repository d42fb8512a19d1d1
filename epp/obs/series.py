"""Counters, gauges and histograms as plain numbers, rendered only when somebody scrapes.

`prometheus_client`'s own metrics take a lock and walk the buckets for each observation, and every deprecated twin would
pay again. Here an observation is a dictionary look-up and an addition, only the addition for who keeps what `at` gave;
a twin is summed up at the scrape. One thread writes; another may render, as `list(dict.items())` is one step of the
interpreter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels = tuple[str, ...]
PREFIX = "llm_d_epp_"


@dataclass(frozen=True, slots=True)
class Twin:
    """An older name under which the same numbers are still told; `labels` are `name` or `name=label of the metric`."""

    name: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric, declared once. `name` without PREFIX; its unit is part of it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: Labels
    about: str
    buckets: tuple[float, ...] = ()
    """Upper bounds, ascending, without +Inf."""
    twin: Twin | None = None
    retired: bool = False
    """Told under its twin's name alone."""


class Cell:
    """One series of a counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Cells:
    """The values of a counter or gauge by label values."""

    __slots__ = ("spec", "values")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.values: dict[Labels, Cell] = {} if spec.labels else {(): Cell()}

    def at(self, labels: Labels) -> Cell:
        """The series with these labels, begun if need be; good until it is dropped."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Cell()
        return found

    def add(self, labels: Labels, amount: float = 1.0) -> None:
        self.at(labels).value += amount

    def set(self, labels: Labels, value: float) -> None:
        self.at(labels).value = value

    def drop(self, unwanted: Callable[[Labels, float], bool]) -> bool:
        """Forget the series for which `unwanted` is true; whether there were any."""
        before = self.values
        self.values = {labels: cell for labels, cell in before.items() if not unwanted(labels, cell.value)}
        return len(self.values) < len(before)

    def collect(self) -> Iterator[Metric]:
        values = [(labels, cell.value) for labels, cell in list(self.values.items())]
        for name, about, keys, project in _faces(self.spec):
            sums: dict[Labels, float] = {}
            for labels, value in values:
                key = project(labels)
                sums[key] = sums.get(key, 0.0) + value
            family = CounterMetricFamily if self.spec.kind == "counter" else GaugeMetricFamily
            metric = family(name, about, labels=keys)
            for key, value in sums.items():
                metric.add_metric(key, value)
            if sums:
                yield metric


class Histogram:
    """One series. The first bucket is counted apart, as most observations fall into it: how long a plug-in took."""

    __slots__ = ("_counts", "_first", "_first_bound", "_sum", "bounds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0.0] * (len(bounds) + 1)
        self._sum = 0.0
        self._first = 0.0
        self._first_bound: float = bounds[0]

    def observe(self, value: float) -> None:
        self._sum += value
        if value <= self._first_bound:
            self._first += 1.0
        else:
            self._counts[bisect_left(self.bounds, value)] += 1.0

    def counts(self) -> list[float]:
        """How many fell into each bucket and, last, the sum."""
        return [self._first, *self._counts[1:], self._sum]


class Histograms:
    """The histograms of one metric by label values."""

    __slots__ = ("spec", "values")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.values: dict[Labels, Histogram] = {} if spec.labels else {(): Histogram(spec.buckets)}

    def at(self, labels: Labels) -> Histogram:
        """The series with these labels, begun if need be."""
        found = self.values.get(labels)
        if found is None:
            found = self.values[labels] = Histogram(self.spec.buckets)
        return found

    def observe(self, labels: Labels, value: float) -> None:
        self.at(labels).observe(value)

    def collect(self) -> Iterator[Metric]:
        values = [(labels, series.counts()) for labels, series in list(self.values.items())]
        bounds = [*map(floatToGoString, self.spec.buckets), "+Inf"]
        for name, about, keys, project in _faces(self.spec):
            sums: dict[Labels, list[float]] = {}
            for labels, counts in values:
                key = project(labels)
                before = sums.get(key)
                sums[key] = counts if before is None else [a + b for a, b in zip(before, counts, strict=True)]
            metric = HistogramMetricFamily(name, about, labels=keys)
            for key, counts in sums.items():
                metric.add_metric(key, list(zip(bounds, accumulate(counts[:-1]), strict=True)), counts[-1])
            if sums:
                yield metric


def _faces(spec: Spec) -> Iterator[tuple[str, str, Labels, Callable[[Labels], Labels]]]:
    """(name, help, label names, projection of label values) of the metric and of its twin."""
    if not spec.retired:
        yield PREFIX + spec.name, f"[ALPHA] {spec.about}", spec.labels, _same
    if spec.twin is not None:
        sources = [label.partition("=")[::2] for label in spec.twin.labels]
        rows = [spec.labels.index(source or name) for name, source in sources]
        about = f"[ALPHA] [Deprecated: Use {PREFIX}{spec.name}] {spec.about}"
        yield spec.twin.name, about, tuple(name for name, _ in sources), _projection(rows)


def _same(labels: Labels) -> Labels:
    return labels


def _projection(rows: list[int]) -> Callable[[Labels], Labels]:
    return lambda labels: tuple([labels[row] for row in rows])


class Families(Collector):
    """Everything declared in some tables, as one collector for a registry."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        self._families: dict[str, Cells | Histograms] = {
            spec.name: Histograms(spec) if spec.kind == "histogram" else Cells(spec) for spec in specs
        }

    def cells(self, name: str) -> Cells:
        found = self._families[name]
        assert isinstance(found, Cells)
        return found

    def histograms(self, name: str) -> Histograms:
        found = self._families[name]
        assert isinstance(found, Histograms)
        return found

    def collect(self) -> Iterator[Metric]:
        for family in self._families.values():
            yield from family.collect()


LONGEST_VALUE = 256
"""Characters. A request brings some 200 lines of a scrape, each with its names: one of 2 MB made a page of 1.2 GB."""


class Cap:
    """At most `limit` distinct values, none over LONGEST_VALUE; others become `other`. The empty one always passes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = {""}
        self._kept: frozenset[str] = frozenset()

    def keep(self, values: Iterable[str]) -> None:
        """These always pass and do not count: the operator named them."""
        self._kept = frozenset(values)

    def __call__(self, value: str) -> str:
        if value in self._seen or value in self._kept:
            return value
        if len(self._seen) > self._limit or len(value) > LONGEST_VALUE:
            return "other"
        self._seen.add(value)
        return value
