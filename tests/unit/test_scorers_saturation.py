"""Detectors of saturation: upstream's vectors, and what our own one makes of readings that are old or missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epp import Endpoints, testing
from epp.pool.load import SEATS_HOLD_S
from epp.pool.table import Pool
from epp.types import Change, Endpoint, Reading
from scorers.saturation import ConcurrencyDetector, LedgerDetector, UtilizationDetector

NOW = 100.0


def read(*loads: tuple[float, float] | None) -> Endpoints:
    """Endpoints with (waiting, kv_usage), None = a stale reading."""
    return testing.endpoints(
        waiting=[load[0] if load else 0.0 for load in loads],
        kv_usage=[load[1] if load else 0.0 for load in loads],
        read_at=[NOW if load else NOW - 1.0 for load in loads],
        now=NOW,
    )


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([(2, 0.5)], 0.5556),
        ([None], 1.0),
        ([(10, 0.1)], 2.0),
        ([(1, 0.95)], 1.0556),
        ([(1, 0.1), (0, 0.2)], 0.2111),
        ([(1, 0.1), None], 0.6),
        ([(1, 0.1), (15, 0.2)], 1.6),
        ([None, (20, 0.2), (1, 0.99)], 2.0333),
    ],
)
def test_utilization_is_the_mean_of_the_fuller_of_queue_and_cache(loads: list[Any], expected: float) -> None:
    detector = UtilizationDetector(
        queue_depth_threshold=5, kv_cache_util_threshold=0.9, metrics_staleness_threshold="100ms"
    )
    assert detector.saturation(read(*loads)).mean() == pytest.approx(expected, abs=1e-4)


def test_a_reading_is_stale_only_after_three_intervals_too() -> None:
    endpoints = testing.endpoints(waiting=[1.0, 1.0], read_at=[98.0, 96.9], interval_s=[1.0, 1.0], now=NOW)
    assert UtilizationDetector().saturation(endpoints).tolist() == [0.2, 1.0]


@pytest.mark.parametrize(
    ("loads", "kept"),
    [
        ([(5, 0.8)], [True]),
        ([(5, 0.9)], [True]),
        ([(7, 0.1), (1, 0.1)], [False, True]),
        ([(1, 0.97), (1, 0.5)], [False, True]),
        ([None, None], [True, True]),
        ([(9, 0.9), (9, 0.9)], [True, True]),
    ],
)
def test_as_a_filter_utilization_keeps_those_with_room_or_all(loads: list[Any], kept: list[bool]) -> None:
    detector = UtilizationDetector(headroom=0.2, metrics_staleness_threshold="100ms")
    assert detector.filter(read(*loads)).tolist() == kept


@pytest.mark.parametrize(
    ("inflight", "expected"), [([0], 0), ([5], 0.5), ([10], 1), ([10, 0], 0.5), ([15, 5], 1), ([15, 15], 1.5)]
)
def test_concurrency_counts_requests(inflight: list[float], expected: float) -> None:
    endpoints = testing.endpoints(inflight=inflight)
    assert ConcurrencyDetector(max_concurrency=10).saturation(endpoints).mean() == pytest.approx(expected)


@pytest.mark.parametrize(("tokens", "expected"), [([3], 0.03), ([50], 0.5), ([20, 30], 0.25)])
def test_concurrency_counts_tokens(tokens: list[float], expected: float) -> None:
    endpoints = testing.endpoints(inflight_tokens=tokens)
    detector = ConcurrencyDetector(concurrency_mode="tokens", max_token_concurrency=100)
    assert detector.saturation(endpoints).mean() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("requests", "tokens", "expected"), [([2], [80], 0.8), ([9], [10], 0.9), ([10], [5], 1), ([10, 0], [100, 0], 0.5)]
)
def test_concurrency_takes_the_fuller_of_both(requests: list[float], tokens: list[float], expected: float) -> None:
    endpoints = testing.endpoints(inflight=requests, inflight_tokens=tokens)
    detector = ConcurrencyDetector(concurrency_mode="hybrid", max_concurrency=10, max_token_concurrency=100)
    assert detector.saturation(endpoints).mean() == pytest.approx(expected)


def test_as_a_filter_concurrency_may_keep_nobody() -> None:
    tokens = ConcurrencyDetector(concurrency_mode="tokens", max_token_concurrency=100, headroom=0.2)
    assert tokens.filter(testing.endpoints(inflight_tokens=[110.0])).tolist() == [True]
    assert tokens.filter(testing.endpoints(inflight_tokens=[120.0])).tolist() == [False]
    both = ConcurrencyDetector(concurrency_mode="hybrid", max_concurrency=10, max_token_concurrency=100)
    endpoints = testing.endpoints(inflight=[5.0, 10.0, 5.0], inflight_tokens=[50.0, 50.0, 100.0])
    assert both.filter(endpoints).tolist() == [True, False, False]


class Engine:
    """One endpoint of a pool, as readings and the ledger show it."""

    def __init__(self) -> None:
        self.pool = Pool()
        self.pool.apply(Change((Endpoint("a", "10.0.0.1", 8000),)))
        self.now = NOW

    def read(self, waiting: float, running: float, kv_usage: float = 0.0) -> None:
        self.pool.sent("default/a")
        reading = Reading(waiting=waiting, running=running, kv_usage=kv_usage)
        self.pool.update("default/a", reading, self.now, 1.0)

    def send(self, count: int) -> None:
        for _ in range(count):
            self.pool.ledger.charge("default/a")

    def full(self) -> float:
        return float(LedgerDetector().saturation(self.pool.snapshot(self.now))[0])


def test_what_is_sent_after_a_reading_counts_at_once() -> None:
    engine = Engine()
    engine.read(0, 0)
    assert engine.full() == 0.0
    engine.send(9)
    # 8 seats until more is known, and a queue of 2.
    assert engine.full() == pytest.approx(0.9)
    engine.send(1)
    assert engine.full() == 1.0


def test_a_queue_shows_how_many_seats_there_are() -> None:
    engine = Engine()
    engine.read(0, 0)
    engine.send(10)
    engine.read(5, 5)
    assert engine.full() == 1.0
    engine.read(1, 5)
    assert engine.full() == pytest.approx(6 / 6.25)


def test_an_engine_without_a_queue_is_taken_to_run_twice_as_much() -> None:
    engine = Engine()
    engine.read(0, 50)
    assert engine.full() == pytest.approx(50 / 104)


def test_seats_shown_by_a_queue_are_believed_until_more_are_taken() -> None:
    engine = Engine()
    engine.read(2, 16)
    engine.read(0, 16)
    assert engine.full() == pytest.approx(16 / 20)
    engine.read(0, 20)
    assert engine.full() == pytest.approx(20 / 29)


def test_seats_are_asked_for_anew_when_the_queue_was_long_ago() -> None:
    engine = Engine()
    engine.read(2, 16)
    engine.now += SEATS_HOLD_S + 1.0
    engine.read(0, 16)
    assert engine.full() == pytest.approx(16 / 24)


def test_a_moments_queue_halves_what_was_learned_at_most() -> None:
    engine = Engine()
    engine.read(0, 50)
    engine.read(2, 3)
    assert engine.full() == pytest.approx(5 / 54)


def test_a_full_cache_is_full() -> None:
    engine = Engine()
    engine.read(0, 3, kv_usage=0.95)
    assert engine.full() == 1.0


def test_stale_readings_neither_stop_nor_flood_an_engine() -> None:
    engine = Engine()
    engine.read(4, 5)
    engine.now += 60.0
    assert engine.full() == 0.0
    engine.send(9)
    assert engine.full() == 1.0


def test_an_engine_never_read_takes_what_is_assumed() -> None:
    engine = Engine()
    engine.send(10)
    assert engine.full() == pytest.approx(10 / 20)
    engine.send(90)
    assert engine.full() == 1.0


def test_one_engine_with_room_keeps_the_pool_open() -> None:
    endpoints = testing.endpoints(waiting=[90.0, 0.0], running=[10.0, 1.0], seats=[10.0, 10.0])
    each = LedgerDetector().saturation(endpoints)
    assert each.tolist() == [1.0, pytest.approx(1 / 12.5)]
    assert LedgerDetector().filter(endpoints).tolist() == [False, True]
    assert np.isfinite(each).all()


@pytest.mark.parametrize("given", ["soon", "0s", 0, -5, "-1s"])
def test_a_threshold_that_is_no_duration_is_refused_with_the_remedy(given: str | float) -> None:
    with pytest.raises(
        ValueError, match=r"metricsStalenessThreshold .* is no duration; write a number above 0 with its"
    ):
        UtilizationDetector(metrics_staleness_threshold=given)
