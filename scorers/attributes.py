"""Filters and scorers by one custom metric of the endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct

from epp import Column, Endpoints, Mask, Scores
from scorers.spread import lowest_best

DEFAULT_PRODUCER = "core-metrics-extractor"
Name = Annotated[str, Meta(min_length=1)]


class FixedRange(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The values that score 0 and 1; what lies outside counts as the nearer one."""

    min: float
    max: float

    def __post_init__(self) -> None:
        if self.min >= self.max:
            raise ValueError(f"fixedRange: min must be less than max; got {self.min:g} and {self.max:g}")


class AdaptiveRange(Struct, frozen=True, forbid_unknown_fields=True):
    """The lowest and highest value among the candidates that have one."""


class Normalization(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """How a value becomes a score; adaptiveRange unless fixedRange is given."""

    fixed_range: FixedRange | None = None
    adaptive_range: AdaptiveRange | None = None

    def __post_init__(self) -> None:
        if self.fixed_range and self.adaptive_range:
            raise ValueError("normalization: give fixedRange or adaptiveRange, not both")


class Linear(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Which end of the range is best."""

    type: Literal["linear_lower_is_better", "linear_higher_is_better"]
    normalization: Normalization = Normalization()


class EndpointAttributeScorer:
    """Prefer a low (or high) value of one custom metric, linear over a range; endpoints without it get 0."""

    alpha = True

    def __init__(self, *, attribute_key: Name, algorithm: Linear, producer: str | None = None) -> None:
        self._key = attribute_name(attribute_key, producer)
        self._sign = -1.0 if algorithm.type == "linear_higher_is_better" else 1.0
        self._range = algorithm.normalization.fixed_range

    def __call__(self, endpoints: Endpoints) -> Scores:
        values, present = endpoints.attribute(self._key)
        scores: Scores = np.zeros(len(values))
        scores[present] = self._scores(values[present])
        return scores

    def _scores(self, values: Column) -> Scores:
        if self._range is None:
            return lowest_best(self._sign * values)
        share = np.clip((values - self._range.min) / (self._range.max - self._range.min), 0.0, 1.0)
        return share if self._sign < 0.0 else 1.0 - share


Compare = Callable[[Any, Any], Any]  # numpy's comparisons: of columns or numbers
COMPARE: dict[str, Compare] = {
    "LessThan": np.less,
    "LessThanOrEqual": np.less_equal,
    "GreaterThan": np.greater,
    "GreaterThanOrEqual": np.greater_equal,
    "Equal": np.equal,
    "NotEqual": np.not_equal,
}


class Threshold(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Endpoints are kept where the comparison with `value` is true."""

    operator: Literal["LessThan", "LessThanOrEqual", "GreaterThan", "GreaterThanOrEqual", "Equal", "NotEqual"]
    value: float


class ByThreshold(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """The one way there is to filter by an attribute."""

    type: Literal["threshold"]
    threshold: Threshold


class EndpointAttributeFilter:
    """Keep the endpoints whose custom metric passes a comparison."""

    alpha = True

    def __init__(
        self,
        *,
        attribute: Name,
        algorithm: ByThreshold,
        producer: str | None = None,
        on_missing: Literal["Pass", "Fail"] = "Pass",
        fallback_on_empty: bool = False,
    ) -> None:
        self._key = attribute_name(attribute, producer)
        self._compare = COMPARE[algorithm.threshold.operator]
        self._value = algorithm.threshold.value
        self._missing = on_missing == "Pass"
        self._fallback = fallback_on_empty

    def __call__(self, endpoints: Endpoints) -> Mask:
        values, present = endpoints.attribute(self._key)
        kept: Mask = np.where(present, self._compare(values, self._value), self._missing)
        return np.ones_like(kept) if self._fallback and not kept.any() else kept


def attribute_name(key: str, producer: str | None) -> str:
    """The name under which the endpoints hold an attribute.

    Custom metrics go by their bare key, as do attributes without a producer (""); others by `key/producer`. A key with
    a slash cannot be a custom metric's: ValueError.
    """
    if producer is None and "/" in key:
        raise ValueError(f'attribute {key!r} has a slash: name its producer too (producer: "" if it has none)')
    return f"{key}/{producer}" if producer not in {None, "", DEFAULT_PRODUCER} else key
