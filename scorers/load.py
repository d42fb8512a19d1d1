"""Scorers and filters by load: queues, running requests, KV cache, requests and tokens in flight."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta, Struct

from epp import Column, Endpoints, Mask, Scores
from scorers.spread import lowest_best

LOAD_THRESHOLD = 128
QUEUE_THRESHOLD_TOKENS = 4_194_304


def queue_scorer(endpoints: Endpoints) -> Scores:
    """Prefer short queues: 1 for the shortest among the candidates, 0 for the longest."""
    return lowest_best(endpoints.waiting)


def running_requests_size_scorer(endpoints: Endpoints) -> Scores:
    """Prefer few running requests: 1 for the fewest among the candidates, 0 for the most."""
    return lowest_best(endpoints.running)


def kv_cache_utilization_scorer(endpoints: Endpoints) -> Scores:
    """Prefer a free KV cache: the share that is not in use."""
    return 1.0 - endpoints.kv_usage


def load_aware_scorer(endpoints: Endpoints, *, threshold: int = LOAD_THRESHOLD) -> Scores:
    """Prefer short queues in absolute terms: 0.5 when empty, 0 from `threshold` waiting requests on."""
    limit = threshold if threshold > 0 else LOAD_THRESHOLD
    return 0.5 - np.minimum(endpoints.waiting, limit) * (0.5 / limit)


class ActiveRequestScorer:
    """Prefer few requests in flight from this picker: 1 up to `idle_threshold`, 0 for the busiest candidate."""

    def __init__(
        self,
        *,
        idle_threshold: int = 0,
        max_busy_score: float = 1.0,
        in_flight_load_producer_name: str = "",
        request_timeout: str | float | None = None,
    ) -> None:
        self._idle = max(0, idle_threshold)
        self._busy_score = max_busy_score if 0.0 <= max_busy_score <= 1.0 else 1.0
        ignored = "requestTimeout is ignored: a request is in flight until its stream ends"
        self.warnings = () if request_timeout is None else (ignored,)

    def __call__(self, endpoints: Endpoints) -> Scores:
        inflight = endpoints.inflight
        most = np.maximum.reduce(inflight, initial=0.0)
        if most <= self._idle:
            return np.ones(len(inflight))
        scores: Scores = (most - inflight) * (self._busy_score / most)
        scores[inflight <= self._idle] = 1.0
        return scores


def token_load_scorer(
    endpoints: Endpoints,
    uncached_tokens: Column,
    *,
    queue_threshold_tokens: int = QUEUE_THRESHOLD_TOKENS,
    in_flight_load_producer_name: str = "",
) -> Scores:
    """Prefer few prompt tokens to compute, this request's included: 1 for none, 0 from the threshold on."""
    limit = queue_threshold_tokens if queue_threshold_tokens > 0 else QUEUE_THRESHOLD_TOKENS
    tokens = endpoints.inflight_tokens + uncached_tokens
    return 1.0 - np.minimum(np.maximum(tokens, 0.0), limit) / limit


COLUMN_OF = {
    "active-requests": "inflight",
    "running-requests": "running",
    "waiting-queue": "waiting",
    "kv-cache-utilization": "kv_usage",
}
"""Metric of a condition → column of the endpoints."""


class Condition(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """An upper limit, inclusive, on one load metric."""

    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
    max_value: Annotated[float, Meta(ge=0)]
    """Requests; for the KV cache a share, at most 1."""


class UtilizationFilter:
    """Keep the endpoints within every limit; with `fallback_on_empty` all of them where none is."""

    alpha = True

    def __init__(
        self,
        *,
        conditions: Annotated[tuple[Condition, ...], Meta(min_length=1)],
        fallback_on_empty: bool = False,
        in_flight_load_producer_name: str = "",
    ) -> None:
        for condition in conditions:
            if condition.metric == "kv-cache-utilization" and condition.max_value > 1.0:
                raise ValueError(f"conditions: kv-cache-utilization is a share, 0 … 1; got {condition.max_value:g}")
        self._limits = [(COLUMN_OF[condition.metric], condition.max_value) for condition in conditions]
        self._fallback = fallback_on_empty

    def __call__(self, endpoints: Endpoints) -> Mask:
        kept: Mask = np.ones(len(endpoints), dtype=np.bool_)
        for column, limit in self._limits:
            kept &= endpoints.column(column) <= limit
        return np.ones_like(kept) if self._fallback and not kept.any() else kept
