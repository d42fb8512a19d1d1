"""Prefer the endpoints that hold the beginning of the prompt in their KV cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from epp import Column, Endpoints, Mask, Scores

Share = Annotated[float, Meta(ge=0, le=1)]
MATCH_SCALE_TOKENS = 8192
MAX_TTFT_PENALTY_MS = 18_000.0
UNKNOWN_MS = 1e12
"""Stands for the TTFT of an endpoint without a prediction, which is told as 0."""
PEAK_PREFILL_THROUGHPUT = 15_928.0
"""Tokens a second."""


class PrefixCacheScorer:
    """Prefer endpoints that hold more of the prompt: the share of its blocks that are cached.

    With `match_length_weight` above 0, that part of the score is the square of the cached length instead, over
    `match_length_scale_tokens` and at most 1: long matches then count more than short prompts wholly matched.
    """

    def __init__(
        self,
        *,
        match_length_weight: Share = 0.0,
        match_length_scale_tokens: int = MATCH_SCALE_TOKENS,
        prefix_match_info_producer_name: str = "",
    ) -> None:
        if match_length_weight > 0.0 and match_length_scale_tokens <= 0:
            raise ValueError(
                f"matchLengthScaleTokens must be above 0 where matchLengthWeight is; got {match_length_scale_tokens}"
            )
        self._weight = match_length_weight
        self._scale = match_length_scale_tokens

    def __call__(self, cached_blocks: Column, prompt_blocks: float, prefix_block_tokens: float) -> Scores:
        if prompt_blocks <= 0.0:
            return np.zeros(len(cached_blocks))
        if not self._weight:
            return cached_blocks / prompt_blocks
        length = np.minimum(cached_blocks * (prefix_block_tokens / self._scale), 1.0)
        return self._weight * length**2 + (1.0 - self._weight) * (cached_blocks / prompt_blocks)


class PrefixCacheAffinityFilter:
    """Keep only the endpoints that hold the prompt, unless the best of them is too much busier than the best other.

    "Hold" = at least `affinity_threshold` of its blocks (0 or less: filter nothing). "Too much busier" = its first
    token is expected `max_ttft_penalty_ms` later (0: never too much).
    """

    def __init__(
        self,
        *,
        affinity_threshold: Annotated[float, Meta(le=1)] = 0.80,
        exploration_probability: Share = 0.0,
        max_ttft_penalty_ms: Annotated[float, Meta(ge=0)] = MAX_TTFT_PENALTY_MS,
        ttft_source: Literal["prefillThroughput", "latencyPredictor"] = "prefillThroughput",
        peak_prefill_throughput: Annotated[float, Meta(ge=0)] = PEAK_PREFILL_THROUGHPUT,
        prefix_match_info_producer_name: str = "",
        latency_prediction_info_producer_name: str = "",
        in_flight_load_producer_name: str = "",
    ) -> None:
        predicted = ttft_source == "latencyPredictor"
        if not predicted and max_ttft_penalty_ms > 0.0 and peak_prefill_throughput == 0.0:
            raise ValueError("peakPrefillThroughput must be above 0 where ttftSource is prefillThroughput")
        self._threshold = affinity_threshold
        self._exploration = exploration_probability
        self._penalty_ms = max_ttft_penalty_ms
        self._tokens_per_ms = peak_prefill_throughput / 1000.0
        # What it reads depends on a setting, so that a signal nobody provides is asked for only where it is wanted.
        self.filter: Callable[..., Mask] = self._by_prediction if predicted else self._by_throughput

    def _by_throughput(
        self,
        endpoints: Endpoints,
        rng: np.random.Generator,
        cached_blocks: Column,
        prompt_blocks: float,
        inflight_charge: object,  # read so that the tokens in flight are counted by it
    ) -> Mask:
        sticky = self._sticky(rng, cached_blocks, prompt_blocks)
        if sticky is None:
            return np.ones(len(cached_blocks), dtype=np.bool_)
        # Tokens and milliseconds compare alike: the limit is turned into tokens instead of each row into a time.
        return self._unless_busy(sticky, endpoints.inflight_tokens, self._penalty_ms * self._tokens_per_ms)

    def _by_prediction(
        self, rng: np.random.Generator, cached_blocks: Column, prompt_blocks: float, predicted_ttft_ms: Column
    ) -> Mask:
        sticky = self._sticky(rng, cached_blocks, prompt_blocks)
        if sticky is None:
            return np.ones(len(cached_blocks), dtype=np.bool_)
        predicted_ttft_ms = np.where(predicted_ttft_ms > 0.0, predicted_ttft_ms, UNKNOWN_MS)
        return self._unless_busy(sticky, predicted_ttft_ms, self._penalty_ms)

    def _sticky(self, rng: np.random.Generator, cached_blocks: Column, prompt_blocks: float) -> Mask | None:
        """Who holds the prompt; None if nothing is to be filtered this time."""
        if self._threshold <= 0.0 or len(cached_blocks) < 2:
            return None
        if self._exploration and rng.random() < self._exploration:
            return None
        sticky: Mask = cached_blocks >= self._threshold * prompt_blocks
        return sticky if sticky.any() else None

    def _unless_busy(self, sticky: Mask, wait: Column, most: float) -> Mask:
        """`sticky`, or everyone if the best wait there exceeds the best elsewhere by over `most` (0 = no limit)."""
        if self._penalty_ms > 0.0 and not sticky.all() and wait[sticky].min() - wait[~sticky].min() > most:
            return np.ones_like(sticky)
        return sticky
