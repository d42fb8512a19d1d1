"""What a request costs at each endpoint in milliseconds: work ahead of it, its own, and what it does to others."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from epp import Column, Decision, Endpoints, Outcome, Request, Scores, column, signal

MISS_PRICE = 4.0
SOFTEN_MS = 50.0
"""Costs are told apart by their ratio where they are large, by their difference where they are small."""
FACTOR_WEIGHT = 1 / 32
SLOWEST, FASTEST = 20.0, 0.05
"""Bounds of an endpoint's own factor."""
TOKENS_WEIGHT = 1 / 64
FIRST_TOKENS = 100.0
MOST_UNDER_WAY = 65_536


class Line:
    """A sum of prices, fitted to what was seen by recursive least squares that forgets: the last 500 count.

    One outlier moves it by five times of what was expected at most, and no price falls below its least.
    """

    FORGET = 0.998

    def __init__(
        self, prices: tuple[float, ...], least: tuple[float, ...], trust: tuple[float, ...], noise: float
    ) -> None:
        self.prices = np.array(prices)
        self._least = np.array(least)
        self._most = np.diag(trust)
        self._spread = np.diag(trust)
        self._noise = noise

    def expected(self, seen: npt.NDArray[np.float64]) -> float:
        return float(self.prices @ seen)

    def learn(self, seen: npt.NDArray[np.float64], told: float) -> None:
        """`told` was the sum where so much of each was `seen`."""
        expected = self.expected(seen)
        told = min(told, 5.0 * max(1.0, expected))
        spread = self._spread / self.FORGET
        gain = spread @ seen / (self._noise + seen @ spread @ seen)
        self.prices = np.maximum(self.prices + gain * (told - expected), self._least)
        # What is never seen is forgotten without end: no further than to ten times the doubt of the beginning.
        self._spread = np.clip(
            spread - np.outer(gain, seen @ spread), -10.0 * self._most.max(), 10.0 * self._most.max()
        )


class Pricing:
    """Prices learned from this picker's own answers; one for all endpoints, and a factor for each.

    Milliseconds to the first token = base + per 1,000 prompt tokens ahead + per request in flight; milliseconds of a
    later token = base + per request in flight.
    """

    def __init__(self) -> None:
        self.first = Line((20.0, 100.0, 2.0), (0.0, 0.5, 0.2), (1e2, 1e3, 1e1), 100.0)
        self.later = Line((20.0, 0.1), (0.1, 0.01), (1e2, 1.0), 4.0)
        self.factors: dict[str, float] = {}
        self.answer_tokens = FIRST_TOKENS
        """Running mean."""
        self.learned = 0

    def per_token_ms(self) -> float:
        return float(self.first.prices[1]) / 1000.0

    def per_request_ms(self, factor: npt.NDArray[np.float64] | float) -> npt.NDArray[np.float64] | float:
        """What each request in flight adds: to the first token, and to the whole answer."""
        return factor * float(self.first.prices[2]) + float(self.later.prices[1]) * self.answer_tokens

    def learn_first(self, key: str, tokens: float, requests: float, ttft_ms: float) -> float:
        """The first token came so late with so much ahead. Returns the endpoint's new factor."""
        seen = np.array([1.0, tokens / 1000.0, requests])
        factor = self.factors.get(key, 1.0)
        ratio = min(max(ttft_ms / max(1.0, self.first.expected(seen)), FASTEST), SLOWEST)
        factor += FACTOR_WEIGHT * (ratio - factor)
        self.factors[key] = factor
        self.first.learn(seen, ttft_ms / factor)
        self.learned += 1
        return factor

    def learn_later(self, requests: float, tokens: int, took_ms: float) -> None:
        """So many tokens took so long with so many requests beside."""
        self.answer_tokens += TOKENS_WEIGHT * (tokens - self.answer_tokens)
        if tokens > 1:
            self.later.learn(np.array([1.0, requests]), took_ms / (tokens - 1))


@signal(
    provides={
        "expected_queue_ms": column(0.0),
        "expected_prompt_ms": column(0.0),
        "expected_others_ms": column(0.0),
    },
    by_default=True,
)
class ExpectedWorkProducer:
    """Expect milliseconds at each endpoint: for prompts ahead, for the own uncached prompt, for requests in flight.

    Prices are learned from this picker's own answers; no metrics are needed.
    """

    def __init__(self) -> None:
        self._pricing = Pricing()
        self._under_way: dict[int, tuple[str, float, float]] = {}
        """By id of the decision: endpoint, prompt tokens and requests ahead."""
        self._records: object = None
        self._rows: dict[str, int] = {}
        self._factors = np.zeros(0)

    def __call__(self, endpoints: Endpoints, uncached_tokens: Column) -> tuple[Column, Column, Column]:
        if endpoints.records is not self._records:
            self._records = endpoints.records
            self._rows = {record.key: row for row, record in enumerate(endpoints.records)}
            self._factors = np.array([self._pricing.factors.get(key, 1.0) for key in self._rows])
        per_token = self._factors * self._pricing.per_token_ms()
        per_request = self._pricing.per_request_ms(self._factors)
        return endpoints.inflight_tokens * per_token, uncached_tokens * per_token, endpoints.inflight * per_request

    def picked(self, request: Request, decision: Decision) -> None:
        row, endpoint = decision.run.picked_rows[0], decision.run.picked[0]
        queue, prompt, others = (
            float(decision.signals[f"expected_{n}_ms"][row]) for n in ("queue", "prompt", "others")
        )
        factor = self._pricing.factors.get(endpoint.key, 1.0)
        tokens = (queue + prompt) / (self._pricing.per_token_ms() * factor)
        if len(self._under_way) >= MOST_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]
        requests = others / float(self._pricing.per_request_ms(factor))
        self._under_way[id(decision)] = (endpoint.key, tokens, requests)

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        found = self._under_way.pop(id(decision), None)
        if found is None or outcome.ttft_s is None or outcome.failure:
            return
        key, tokens, requests = found
        ttft_s = outcome.ttft_s - (decision.decided_at - request.received_at)
        if not 0.0 < ttft_s < np.inf:
            return
        factor = self._pricing.learn_first(key, tokens, requests, ttft_s * 1000.0)
        if key in self._rows:
            self._factors[self._rows[key]] = factor
        answer = outcome.usage.completion_tokens if outcome.usage is not None else outcome.pieces
        if outcome.streamed and answer:
            self._pricing.learn_later(requests, answer, (outcome.duration_s - outcome.ttft_s) * 1000.0)

    def adopt(self, before: ExpectedWorkProducer) -> None:
        """What was learned stays true."""
        self._pricing = before._pricing

    def state(self) -> dict[str, object]:
        pricing = self._pricing
        constant, tokens, requests = pricing.first.prices.tolist()
        return {
            "first_token_ms": {"base": constant, "per_1000_prompt_tokens": tokens, "per_request_in_flight": requests},
            "later_token_ms": dict(zip(("base", "per_request_in_flight"), pricing.later.prices.tolist(), strict=True)),
            "answer_tokens": pricing.answer_tokens,
            "learned_from": pricing.learned,
            "factors": dict(pricing.factors),
        }


def expected_work_scorer(
    expected_queue_ms: Column,
    expected_prompt_ms: Column,
    expected_others_ms: Column,
    *,
    miss_price: Annotated[float, Meta(gt=0)] = MISS_PRICE,
) -> Scores:
    """Prefer the least cost in milliseconds: 1 for the cheapest candidate, (least + 50) / (own + 50) for others.

    Cost = wait for prompts ahead + `miss_price` · own uncached prompt + what requests in flight add. A miss costs more
    than its prefill, as it evicts somebody else's blocks.
    """
    if not len(expected_queue_ms):
        return expected_queue_ms
    cost = expected_queue_ms + miss_price * expected_prompt_ms + expected_others_ms
    scores: Scores = (cost.min() + SOFTEN_MS) / (cost + SOFTEN_MS)
    return scores
