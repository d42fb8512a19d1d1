"""What a load came to, in numbers, and the table that sets several beside each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Quantiles(NamedTuple):
    """Seconds; 0 of nothing."""

    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        if not len(values):
            return cls(0.0, 0.0, 0.0)
        return cls(*np.quantile(np.asarray(values), (0.5, 0.9, 0.99)).tolist())


@dataclass(frozen=True, slots=True)
class Figures:
    """One run."""

    requests: int
    errors: int
    """Requests among them that got no whole answer."""
    lasted_s: float
    """From the first request to the end of the last answer."""
    ttft: Quantiles
    """From sending a request to the first piece of its answer; errors do not count."""
    hit_share: float
    """Prompt tokens found in the engines' prefix caches ÷ prompt tokens looked up."""
    imbalance: float
    """Requests that the busiest engine got ÷ the mean of all; 1 = even."""

    @property
    def per_s(self) -> float:
        """Requests answered a second."""
        return (self.requests - self.errors) / self.lasted_s if self.lasted_s else 0.0


def imbalance(requests: Sequence[float]) -> float:
    """Requests of the busiest engine ÷ the mean of all; 1 = even, also where there were none."""
    total = sum(requests)
    return max(requests) * len(requests) / total if total else 1.0


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1.0 else f"{value * 1e3:.0f} ms"


def share(value: float) -> str:
    return f"{value * 100:.1f} %"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    values: Sequence[float]
    show: Callable[[float], str]

    def cells(self) -> list[str]:
        """With two values also the second ÷ the first."""
        shown = [self.show(value) for value in self.values]
        return [*shown, _ratio(*self.values)] if len(shown) == 2 else shown


def rows(figures: Sequence[Figures]) -> list[Row]:
    ttft = [figure.ttft for figure in figures]
    return [
        Row("requests/s", [figure.per_s for figure in figures], "{:.2f}".format),
        Row("TTFT p50", [t.p50 for t in ttft], seconds),
        Row("TTFT p90", [t.p90 for t in ttft], seconds),
        Row("TTFT p99", [t.p99 for t in ttft], seconds),
        Row("prefix-cache hit share", [figure.hit_share for figure in figures], share),
        Row("load imbalance (busiest engine ÷ mean)", [figure.imbalance for figure in figures], "{:.2f}".format),
        Row("errors", [figure.errors for figure in figures], "{:.0f}".format),
    ]


def table(figures: Mapping[str, Figures], more: Sequence[Row] = ()) -> str:
    """A column for each run, by its name, and for two their ratio; `more` lines below."""
    names = [*figures, "ratio"] if len(figures) == 2 else [*figures]
    lines = [("", names), *[(row.name, row.cells()) for row in (*rows(list(figures.values())), *more)]]
    first = max(len(name) for name, _ in lines)
    widths = [max(9, *(len(cells[at]) for _, cells in lines)) for at in range(len(names))]
    shown = [
        "  ".join([name.ljust(first), *[cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]])
        for name, cells in lines
    ]
    return "\n".join([shown[0], "─" * len(shown[0]), *shown[1:]]) + "\n"


def _ratio(first: float, second: float) -> str:
    if not first:
        return "–"
    ratio = second / first
    return f"× {ratio:.2f}" if ratio >= 0.1 or not ratio else f"× {ratio:.{1 - math.floor(math.log10(ratio))}f}"
