"""Prices in milliseconds: what they are learned from, what they make of load, and that nothing odd spoils them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp import Decision, Endpoints, Outcome, Request, Usage, testing
from epp.types import Run
from scorers.expected_work import ExpectedWorkProducer, Pricing, expected_work_scorer

NONE = np.zeros(2)


def expected(producer: ExpectedWorkProducer, endpoints: Endpoints, uncached: float) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(producer(endpoints, np.full(len(endpoints), uncached))).sum(axis=0)


class Served:
    """A producer and engines that take a known time."""

    def __init__(self, slow: float = 1.0) -> None:
        self.producer = ExpectedWorkProducer()
        self.endpoints = testing.endpoints(inflight=[0.0, 0.0])
        self._slow = slow

    def ask(self, row: int, uncached: float, **outcome: object) -> None:
        request = testing.request(received_at=10.0)
        values = self.producer(self.endpoints, np.full(2, uncached))
        names = ("expected_queue_ms", "expected_prompt_ms", "expected_others_ms")
        run = Run("default", picked=(self.endpoints.records[row],), picked_rows=(row,))
        decision = Decision(
            "r", "m", 10.0, 2, "default", {"default": run}, signals=dict(zip(names, values, strict=True))
        )
        self.producer.picked(request, decision)
        ttft_s = (0.01 + uncached * 2e-4) * (self._slow if row else 1.0)
        told = {"usage": None, "status": 200, "cause": "natural", "ttft_s": ttft_s, "duration_s": ttft_s, **outcome}
        self.producer.finished(request, decision, Outcome(**told))  # type: ignore[arg-type]


def test_the_rate_of_prefill_is_learned_from_first_tokens() -> None:
    served = Served()
    for number in range(400):
        served.ask(number % 2, float(number % 40) * 100.0)
    state = served.producer.state()
    assert state["first_token_ms"]["per_1000_prompt_tokens"] == pytest.approx(200.0, rel=0.1)  # type: ignore[index]
    assert state["learned_from"] == 400


def test_a_slow_endpoint_costs_more_in_the_same_unit() -> None:
    served = Served(slow=4.0)
    for number in range(400):
        served.ask(number % 2, float(number % 40) * 100.0)
    fast, slow = expected(served.producer, served.endpoints, 1000.0)
    assert slow / fast == pytest.approx(4.0, rel=0.25)


def test_before_anything_is_learned_work_still_counts() -> None:
    producer = ExpectedWorkProducer()
    endpoints = testing.endpoints(inflight_tokens=[0.0, 500.0], inflight=[0.0, 1.0])
    idle, busy = expected(producer, endpoints, 100.0)
    assert 0.0 < idle < busy


@pytest.mark.parametrize("ttft_s", [None, 0.0, -1.0, math.inf, math.nan])
def test_odd_times_teach_nothing(ttft_s: float | None) -> None:
    served = Served()
    served.ask(0, 100.0, ttft_s=ttft_s)
    assert served.producer.state()["learned_from"] == 0


def test_a_failed_answer_teaches_nothing() -> None:
    served = Served()
    served.ask(0, 100.0, failure="5xx")
    assert served.producer.state()["learned_from"] == 0


def test_what_answers_slow_each_other_down_is_learned_from_their_tokens() -> None:
    pricing = Pricing()
    for number in range(500):
        requests = float(number % 20)
        pricing.learn_later(requests, 101, 100 * (20.0 + 0.5 * requests))
    base, each = pricing.later.prices
    assert base == pytest.approx(20.0, rel=0.1)
    assert each == pytest.approx(0.5, rel=0.1)


def test_usage_counts_before_pieces() -> None:
    served = Served()
    usage = Usage(10, 300, 310)
    served.ask(0, 100.0, usage=usage, pieces=3, streamed=True, duration_s=7.0)
    assert served.producer.state()["answer_tokens"] == pytest.approx(100.0 + 200.0 / 64)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.floats(0, 1e6),
            st.floats(0, 1e4),
            st.floats(1e-6, 1e9),
            st.integers(0, 10**6),
        ),
        max_size=60,
    )
)
def test_whatever_is_seen_prices_stay_finite_and_above_nothing(
    seen: list[tuple[str, float, float, float, int]],
) -> None:
    pricing = Pricing()
    for key, tokens, requests, took_ms, answer in seen:
        pricing.learn_first(key, tokens, requests, took_ms)
        pricing.learn_later(requests, answer, took_ms)
    assert np.isfinite(pricing.first.prices).all()
    assert np.isfinite(pricing.later.prices).all()
    assert pricing.per_token_ms() > 0.0
    assert all(0.0 < factor <= 20.0 for factor in pricing.factors.values())


MS = st.lists(st.floats(0, 1e6), min_size=1, max_size=5)


@settings(max_examples=200)
@given(MS, st.floats(1e-3, 100.0))
def test_less_cost_is_never_a_lower_score(cost: list[float], price: float) -> None:
    each = np.array(cost)
    nothing = np.zeros(len(each))
    for scores in (
        expected_work_scorer(each, nothing, nothing, miss_price=price),
        expected_work_scorer(nothing, each, nothing, miss_price=price),
        expected_work_scorer(nothing, nothing, each, miss_price=price),
    ):
        assert scores.max() == 1.0
        assert (np.diff(scores[np.argsort(each, kind="stable")]) <= 1e-12).all()


def test_a_miss_costs_its_price() -> None:
    queue, prompt = np.array([390.0, 0.0]), np.array([0.0, 100.0])
    assert expected_work_scorer(queue, prompt, NONE).argmax() == 0
    assert expected_work_scorer(queue, prompt, NONE, miss_price=1.0).argmax() == 1


def test_settings_that_change_keep_what_was_learned() -> None:
    served = Served()
    for _ in range(5):
        served.ask(0, 100.0)
    heir = ExpectedWorkProducer()
    heir.adopt(served.producer)
    assert heir.state() == served.producer.state()


def test_what_never_ends_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorers.expected_work.MOST_UNDER_WAY", 3)
    producer = ExpectedWorkProducer()
    endpoints = testing.endpoints(inflight=[0.0])
    values = producer(endpoints, np.zeros(1))
    names = ("expected_queue_ms", "expected_prompt_ms", "expected_others_ms")
    kept = []
    for _ in range(5):
        run = Run("default", picked=(endpoints.records[0],), picked_rows=(0,))
        kept.append(
            Decision("r", "m", 0.0, 1, "default", {"default": run}, signals=dict(zip(names, values, strict=True)))
        )
        producer.picked(Request(), kept[-1])
    assert len(producer._under_way) == 3
