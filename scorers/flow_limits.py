"""Ceilings of saturation: up to which a priority's requests leave the queue."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Annotated, Literal

from msgspec import Meta


class StaticUsageLimitPolicy:
    """The same ceiling for every priority."""

    def __init__(self, *, threshold: Annotated[float, Meta(gt=0)] = 1.0) -> None:
        self._threshold = threshold
        self._ceilings: tuple[float, ...] = ()

    def __call__(self, saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        if len(self._ceilings) != len(priorities):
            self._ceilings = (self._threshold,) * len(priorities)
        return self._ceilings


class PriorityHoldbackPolicy:
    """Lower priorities stop earlier: ceilings fall from the highest priority's to the lowest's, by rank or by value."""

    alpha = True

    def __init__(
        self,
        *,
        min_ceiling: Annotated[float, Meta(ge=0, lt=1)],
        max_ceiling: Annotated[float, Meta(gt=0, le=1)] = 1.0,
        shape: Literal["linear"] = "linear",
        domain: Literal["rank", "value"] = "rank",
    ) -> None:
        if min_ceiling >= max_ceiling:
            raise ValueError(f"minCeiling ({min_ceiling:g}) must be below maxCeiling ({max_ceiling:g})")
        self._lowest, self._highest = min_ceiling, max_ceiling
        self._by_rank = domain == "rank"

    def __call__(self, saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        places: Sequence[int] = range(len(priorities)) if self._by_rank else [priorities[0] - p for p in priorities]
        span = (self._highest - self._lowest) / (places[-1] or 1)
        return tuple([self._highest - place * span for place in places])


class SoftReflectiveCeilingPolicy:
    """Lower priorities go more and more seldom as saturation rises; the highest one goes whenever there is room."""

    alpha = True

    def __init__(self) -> None:
        self._asked = 0

    def __call__(self, saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        self._asked += 1
        last = len(priorities) - 1
        return tuple([1.0 if not rank or self._opens(saturation, rank / last) else 0.0 for rank in range(last + 1)])

    def _opens(self, saturation: float, depth: float) -> bool:
        """Whether a band goes this time; `depth` is 0 for the highest, 1 for the lowest."""
        if saturation >= 1.0:
            return False
        if saturation < 1.0 - depth * saturation:
            return True
        return saturation >= 0.5 and self._asked % floor(saturation / (1.0 - saturation) + 0.5) == 0
