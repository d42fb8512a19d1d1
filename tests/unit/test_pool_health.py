"""Passive health: who cools, for how long, how they come back."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from epp.pool.health import Health
from epp.types import Endpoint

TEN = [Endpoint(f"e{row}", f"10.0.0.{row + 1}", 8000) for row in range(10)]
ROWS = {endpoint.key: row for row, endpoint in enumerate(TEN)}
KEY = TEN[0].key


def health(**settings: float) -> Health:
    return Health(random.Random(1), **settings)


def cold(made: Health, now: float, endpoints: list[Endpoint] = TEN) -> list[str]:
    mask = made.left_out({e.key: row for row, e in enumerate(endpoints)}, now)
    return [] if mask is None else [e.name for e, out in zip(endpoints, mask, strict=True) if out]


def fail(made: Health, key: str = KEY, times: int = 3, now: float = 0.0) -> None:
    for _ in range(times):
        made.failure(key, now)


def test_three_failures_in_a_row_cool_an_endpoint() -> None:
    made = health()
    fail(made, times=2)
    assert cold(made, 0.0) == []
    fail(made, times=1)
    assert cold(made, 0.0) == ["e0"]


def test_a_success_between_them_starts_the_count_again() -> None:
    made = health()
    fail(made, times=2)
    made.success(KEY, 0.0)
    fail(made, times=2)
    assert cold(made, 0.0) == []


def test_over_half_of_at_least_ten_cools_too() -> None:
    made = health()
    for _ in range(6):
        made.failure(KEY, 0.0)
        made.failure(KEY, 0.0)
        made.success(KEY, 0.0)
    made.failure(KEY, 0.0)
    assert cold(made, 0.0) == ["e0"]


def test_old_failures_count_less_and_less() -> None:
    made = health()
    for at in range(0, 1200, 60):
        made.failure(KEY, float(at))
        made.failure(KEY, float(at))
        made.success(KEY, float(at))
    assert cold(made, 1200.0) == []


def test_after_the_cooling_one_request_probes_and_others_stay_away() -> None:
    made = health()
    fail(made)
    assert cold(made, 0.8) == ["e0"]
    assert cold(made, 1.2) == []
    assert made.picked(KEY, 1.2)
    assert cold(made, 1.2) == ["e0"]
    assert not made.picked(KEY, 1.2)


def test_a_good_probe_ends_the_cooling() -> None:
    made = health()
    fail(made)
    made.picked(KEY, 1.2)
    made.success(KEY, 1.3)
    assert cold(made, 1.3) == []
    assert made.cooling(1.3) == {}


def test_each_bad_probe_doubles_the_cooling_up_to_thirty_seconds() -> None:
    made = health()
    fail(made)
    now, lengths = 0.0, []
    for _ in range(7):
        begun = now
        while cold(made, now):
            now += 0.05
        lengths.append(now - begun)
        assert made.picked(KEY, now)
        made.failure(KEY, now)
    for length, wanted in zip(lengths, [1, 2, 4, 8, 16, 30, 30], strict=True):
        assert 0.89 * wanted <= length <= 1.11 * wanted + 0.1


def test_an_endpoint_that_fails_for_days_is_probed_all_the_time() -> None:
    made, now = health(), 0.0
    fail(made)
    for _ in range(3_000):
        now += 40.0
        assert made.picked(KEY, now)
        fail(made, times=1, now=now)
    assert 26.0 < made.cooling(now)[KEY] < 34.0


def test_a_probe_that_is_never_answered_is_repeated() -> None:
    made = health()
    fail(made)
    made.picked(KEY, 1.2)
    assert cold(made, 31.0) == ["e0"]
    assert cold(made, 31.3) == []


def test_never_more_than_half_the_pool_is_left_out() -> None:
    made = health()
    for endpoint in TEN[:8]:
        fail(made, endpoint.key)
    assert len(cold(made, 0.0)) == 5


def test_the_share_is_a_setting() -> None:
    made = health(largest_share=0.2)
    for endpoint in TEN[:8]:
        fail(made, endpoint.key)
    assert len(cold(made, 0.0)) == 2


def test_if_all_fail_all_stay_candidates() -> None:
    made = health()
    for endpoint in TEN:
        fail(made, endpoint.key)
    assert cold(made, 0.0) == []


def test_the_only_endpoint_is_never_left_out() -> None:
    made = health()
    fail(made)
    assert cold(made, 0.0, TEN[:1]) == []


def test_an_endpoint_that_is_gone_is_forgotten() -> None:
    made = health()
    fail(made)
    made.forget(KEY)
    assert made.cooling(0.0) == {}


def test_an_engine_that_answers_500_at_once_gets_few_requests() -> None:
    made = health()
    rng = random.Random(7)
    sent = 0
    for step in range(20_000):
        now = step / 1000
        mask = made.left_out(ROWS, now)
        candidates = [row for row in range(10) if mask is None or not mask[row]]
        # The failing engine has an empty queue, so whatever may be picked picks it.
        row = 0 if 0 in candidates else rng.choice(candidates)
        made.picked(TEN[row].key, now)
        sent += row == 0
        (made.failure if row == 0 else made.success)(TEN[row].key, now + 0.0005)
    assert sent < 0.05 * 20_000


@given(st.lists(st.tuples(st.sampled_from("fspx"), st.integers(0, 9), st.floats(0, 5)), max_size=60))
def test_whatever_happens_half_stay_and_all_come_back(steps: list[tuple[str, int, float]]) -> None:
    made, now = health(), 0.0
    for kind, row, wait in steps:
        now += wait
        key = TEN[row].key
        if kind == "f":
            made.failure(key, now)
        elif kind == "s":
            made.success(key, now)
        elif kind == "p":
            made.picked(key, now)
        else:
            made.forget(key)
        assert len(cold(made, now)) <= 5
    assert cold(made, now + 100.0) == []
