"""Endpoints for short and for long prompts, told apart by a label with the range of lengths they are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta

from epp import Column, Endpoint, Endpoints, Mask, Scores
from scorers.tokens import Tokens

RANGE_LABEL = "llm-d.ai/context-length-range"
WIDE = 10_000.0
"""Tokens of width at which a range's narrowness counts half."""
FAR = 1_000.0
"""Tokens beyond a range at which what is left of the score halves."""
OUTSIDE = 0.3
"""What endpoints score just outside their range; inside they score more."""
UNLABELLED = 0.5
NO_RANGE = (np.nan, np.nan)
BAD_RANGE = (np.inf, -np.inf)


class ContextLengthAware:
    """Prefer the endpoints whose labelled range of prompt lengths fits best; filter by it if `enable_filtering`.

    The label's value is `min-max`, in tokens. Narrow ranges and room above the prompt score higher; endpoints without
    the label get 0.5 and pass the filter, those with a bad value get 0 and don't.
    """

    def __init__(
        self, *, label: Annotated[str, Meta(min_length=1)] = RANGE_LABEL, enable_filtering: bool = False
    ) -> None:
        self._label = label
        self._filtering = enable_filtering

    def filter(self, endpoints: Endpoints, tokens: Tokens) -> Mask:
        if not self._filtering:
            return np.ones(len(endpoints), dtype=np.bool_)
        low, high = self._ranges(endpoints)
        return np.isnan(low) | ((low <= tokens.count) & (tokens.count <= high))

    def score(self, endpoints: Endpoints, tokens: Tokens) -> Scores:
        low, high = self._ranges(endpoints)
        length = float(tokens.count)
        inside = (low <= length) & (length <= high)
        beyond = np.maximum(low - length, length - high)
        # A bad range is infinitely far from any length, and so gets 0.
        scores: Scores = OUTSIDE / (1.0 + np.maximum(beyond, 0.0) / FAR)
        scores[inside] = _fit(low[inside], high[inside], length)
        scores[np.isnan(low)] = UNLABELLED
        return scores

    def _ranges(self, endpoints: Endpoints) -> tuple[Column, Column]:
        """Lowest and highest length of each row; NaN without a label, and a range nothing is in for a bad one."""
        low = endpoints.derive(("scorers", "context-low", self._label), lambda records: self._bounds(records, 0))
        high = endpoints.derive(("scorers", "context-high", self._label), lambda records: self._bounds(records, 1))
        return low, high

    def _bounds(self, records: Sequence[Endpoint], side: int) -> Column:
        return np.array([parse_range(record.labels.get(self._label))[side] for record in records], dtype=np.float64)


def parse_range(text: str | None) -> tuple[float, float]:
    """(lowest, highest) of `min-max`; NO_RANGE for None, BAD_RANGE for what is not two ascending whole numbers."""
    if text is None:
        return NO_RANGE
    low, dash, high = text.partition("-")
    if not (dash and low.isascii() and low.isdigit() and high.isascii() and high.isdigit() and int(low) <= int(high)):
        return BAD_RANGE
    return float(low), float(high)


def _fit(low: Column, high: Column, length: float) -> Scores:
    """0.3 … 1 for lengths inside their range; 1 for a range of one length."""
    width = high - low
    room = (high - length) / np.maximum(width, 1.0)
    raw = 0.7 / (1.0 + width / WIDE) + 0.3 * room
    return np.where(width > 0.0, OUTSIDE + 0.7 * raw, 1.0)
