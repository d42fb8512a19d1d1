"""latency-scorer, slo-headroom-tier-filter, latency-slo-admitter: what follows from predicted latencies and SLOs.

A predicted TTFT of 0 means that there is no prediction. An SLO's headroom is the SLO less what is predicted; a request
without one counts as having an SLO of 0, so its headroom is below 0 everywhere and the shortest time wins.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from epp import Column, Endpoints, Mask, Refused, Request, Scores

FLAT = 1e-9
"""A dimension that varies by no more than this tells nothing."""
COLD_KV_USAGE = 0.02


class LatencyScorer:
    """Prefer endpoints whose predicted latency fits the SLOs, tightly or amply; without predictions, low load.

    Without any prediction: KV cache, queue and cached share of the prompt, weighted. With some: endpoints that keep
    both SLOs (or that nobody can predict) are scored, all others get 0. If none does: the idle ones, else those that
    break the TPOT only, else the TTFT only, else both, and the smallest excess wins.
    """

    def __init__(
        self,
        *,
        ttft_weight: float = 0.8,
        tpot_weight: float = 0.2,
        headroom_selection_strategy: Literal["least", "most"] = "least",
        composite_kv_weight: float = 1.0,
        composite_queue_weight: float = 1.0,
        composite_prefix_weight: float = 1.0,
        latency_prediction_info_producer_name: str = "",
        prefix_match_info_producer_name: str = "",
    ) -> None:
        total = ttft_weight + tpot_weight
        self._ttft_weight = ttft_weight / total if total > 0.0 else 1.0
        self._tpot_weight = tpot_weight / total if total > 0.0 else 0.0
        self._least = headroom_selection_strategy == "least"
        weights = (composite_kv_weight, composite_queue_weight, composite_prefix_weight)
        whole = sum(weights)
        self._composite_weights = tuple([w / whole for w in weights]) if whole > 0.0 else (1.0, 0.0, 0.0)

    def __call__(  # noqa: PLR0917 - each is a thing it reads, by name; the last one is optional
        self,
        request: Request,
        endpoints: Endpoints,
        predicted_ttft_ms: Column,
        cached_blocks: Column,
        prompt_blocks: float,
        tpot_headroom_ms: Column | None = None,
    ) -> Scores:
        if not len(endpoints) or predicted_ttft_ms.item(predicted_ttft_ms.argmax()) <= 0.0:
            return self._composite(endpoints, cached_blocks / max(prompt_blocks, 1.0))
        ttft = ttft_headroom(request, predicted_ttft_ms)
        tpot = np.zeros(len(ttft)) if tpot_headroom_ms is None else tpot_headroom_ms
        if predicted_ttft_ms.item(predicted_ttft_ms.argmin()) <= 0.0:
            unknown = predicted_ttft_ms <= 0.0
            ttft, tpot = np.where(unknown, 0.0, ttft), np.where(unknown, 0.0, tpot)
        late, slow = ttft < 0.0, tpot < 0.0
        good = ~(late | slow)
        if good.any():
            return self._within(good, ttft, tpot, least=self._least)
        return self._within(_least_bad(endpoints.inflight == 0.0, late, slow), ttft, tpot, least=True)

    def _within(self, mask: Mask, ttft: Column, tpot: Column, *, least: bool) -> Scores:
        """Scores of the rows in `mask` by the size of their headrooms; 0 for the others."""
        if mask.all():
            return self._sized(ttft, tpot, least=least)
        scores = np.zeros(len(mask))
        scores[mask] = self._sized(ttft[mask], tpot[mask], least=least)
        return scores

    def _sized(self, ttft: Column, tpot: Column, *, least: bool) -> Scores:
        """1 for the smallest headroom (with `least`) or the largest, 0.01 at the other end; in hundredths."""
        alpha, beta = self._ttft_weight, self._tpot_weight
        first, first_varies = _spread(np.abs(ttft))
        each, each_varies = _spread(np.abs(tpot))
        if first_varies != each_varies:
            alpha, beta = float(first_varies), float(each_varies)
        size = first * alpha + each * beta
        hundredths = np.trunc((1.0 - size if least else size) * 100.0)
        return np.minimum((hundredths + 1.0) / 100.0, 1.0)

    def _composite(self, endpoints: Endpoints, cached_share: Column) -> Scores:
        """Without predictions: free KV cache, short queue, cached prompt."""
        kv, queue, prefix = self._composite_weights
        waiting = endpoints.waiting
        longest = np.maximum.reduce(waiting, initial=0.0)
        short = (longest - waiting) / longest if longest > 0.0 else np.ones(len(waiting))
        score = kv * (1.0 - endpoints.kv_usage) + queue * short + prefix * cached_share
        return np.clip(np.floor(score * 100.0 + 0.5) / 100.0, 0.0, 1.0)


def ttft_headroom(request: Request, predicted_ttft_ms: Column) -> Column:
    """Milliseconds between the request's TTFT SLO and what is predicted."""
    return (request.slo_ttft_ms or 0.0) - predicted_ttft_ms


def _least_bad(idle: Mask, late: Mask, slow: Mask) -> Mask:
    """Of endpoints that all break an SLO: who is to be scored."""
    choices = (idle, slow & ~late, late & ~slow)
    return next((mask for mask in choices if mask.any()), late & slow)


def _spread(sizes: Column) -> tuple[Column, bool]:
    """The sizes from 0 (least) to 1 (most), and whether they vary; 0.5 for all if not."""
    low, high = sizes.item(sizes.argmin()), sizes.item(sizes.argmax())
    if high - low <= FLAT:
        return np.full(len(sizes), 0.5), False
    return (sizes - low) / (high - low), True


def slo_headroom_tier_filter(
    request: Request,
    rng: np.random.Generator,
    predicted_ttft_ms: Column,
    tpot_headroom_ms: Column,
    *,
    epsilon_explore_neg: Annotated[float, Meta(ge=0, le=1)] = 0.01,
    latency_prediction_info_producer_name: str = "",
) -> Mask:
    """Keep the endpoints that keep both SLOs, now and then (`epsilon_explore_neg`) only the others.

    Whoever has no prediction is with the others; without any prediction, or with one kind only, all are kept.
    """
    predicted = predicted_ttft_ms > 0.0
    good: Mask = predicted & (ttft_headroom(request, predicted_ttft_ms) >= 0.0) & (tpot_headroom_ms >= 0.0)
    if not good.any() or good.all():
        return np.ones(len(good), dtype=np.bool_)
    return ~good if rng.random() < epsilon_explore_neg else good


def latency_slo_admitter(
    request: Request,
    endpoints: Endpoints,
    predicted_ttft_ms: Column,
    tpot_headroom_ms: Column,
    *,
    latency_prediction_info_producer_name: str = "",
) -> Refused | None:
    """Refuse a sheddable request with an SLO that no endpoint is predicted to keep, unless one is idle or cold.

    Idle = nothing runs there; cold = less than 2 % of its KV cache is in use. Without predictions all are admitted.
    """
    has_ttft, has_tpot = (request.slo_ttft_ms or 0.0) > 0.0, (request.slo_tpot_ms or 0.0) > 0.0
    kept = predicted_ttft_ms > 0.0
    if request.priority >= 0 or not (has_ttft or has_tpot) or not kept.any():
        return None
    if has_ttft:
        kept = kept & (ttft_headroom(request, predicted_ttft_ms) > 0.0)
    if has_tpot:
        kept = kept & (tpot_headroom_ms >= 0.0)
    if kept.any() or (endpoints.running == 0.0).any() or (endpoints.kv_usage < COLD_KV_USAGE).any():
        return None
    return Refused(
        429,
        "request cannot be admitted: no endpoint is predicted to keep its latency SLO; "
        "send it later, or with an objective of priority 0 or more",
        "rejected-saturated",
    )
