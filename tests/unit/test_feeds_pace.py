"""How often endpoints are scraped, in virtual time."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds import FeedError
from epp.feeds.pace import BACK_OFF_S, JITTER, Pace, Schedule, next_due, seconds

Told = list[tuple[float, str]]


def drive(
    schedule: Schedule, until: float, *, busy: bool = True, failed: Callable[[float], bool] = lambda _: False
) -> Told:
    """Every scrape (when, whom) up to `until` virtual seconds; each takes no time."""
    told = []
    while (now := schedule.next_due()) is not None and now <= until:
        for key in schedule.due(now):
            told.append((now, key))
            schedule.done(key, sent_at=now, busy=busy, failed=failed(now))
    return told


def schedule_of(*keys: str, pace: Pace | None = None, chance: float = 0.0) -> Schedule:
    schedule = Schedule(pace or Pace(), lambda: chance)
    for key in keys:
        schedule.add(key, 0.0)
    return schedule


@pytest.mark.parametrize(
    ("busy", "times"), [pytest.param(True, [0, 1, 2, 3, 4], id="in use"), pytest.param(False, [0, 2, 4], id="idle")]
)
def test_an_endpoint_in_use_is_read_each_second_and_an_idle_one_each_two(busy: bool, times: list[float]) -> None:
    assert drive(schedule_of("a"), 4, busy=busy) == [(at, "a") for at in times]


def test_failures_back_off_to_thirty_seconds_and_a_success_ends_that() -> None:
    told = drive(schedule_of("a"), 125, failed=lambda now: now < 100)
    assert [at for at, _ in told][:8] == [0, 2, 6, 14, 30, 60, 90, 120]
    assert [at for at, _ in told][8:] == [121, 122, 123, 124, 125]


@pytest.mark.parametrize(
    ("interval_s", "failures", "chance", "expected"),
    [
        pytest.param(1, 0, 0, 101, id="no jitter"),
        pytest.param(1, 0, 0.5, 101.05, id="jitter lengthens"),
        pytest.param(1, 1, 0, 102, id="one failure"),
        pytest.param(1, 3, 0.5, 107.6, id="jitter shortens a back-off"),
        pytest.param(1, 60, 0, 130, id="capped"),
        pytest.param(40, 2, 0.5, 140, id="never more often than the interval"),
    ],
)
def test_the_next_scrape_counts_from_the_last_one_sent(
    interval_s: float, failures: int, chance: float, expected: float
) -> None:
    assert next_due(100, interval_s, failures, chance) == pytest.approx(expected)


@given(st.floats(0.05, 100), st.integers(0, 200), st.floats(0, 1, exclude_max=True))
def test_the_next_scrape_is_never_early_and_never_lost(interval_s: float, failures: int, chance: float) -> None:
    wait_s = next_due(0, interval_s, failures, chance)
    assert interval_s <= wait_s <= max(BACK_OFF_S, interval_s * (1 + JITTER))


def test_endpoints_that_came_together_are_soon_spread_over_the_interval() -> None:
    schedule = Schedule(Pace(busy_s=10), random.Random(1).random)
    for number in range(1000):
        schedule.add(str(number), 0.0)
    per_second = Counter(int(at) for at, _ in drive(schedule, 20) if at > 0)
    assert min(per_second) == 10
    assert max(per_second.values()) < 150


def test_endpoints_that_failed_together_are_spread_when_they_are_back() -> None:
    schedule = Schedule(Pace(busy_s=10), random.Random(1).random)
    for number in range(1000):
        schedule.add(str(number), 0.0)
    told = drive(schedule, 80, failed=lambda now: now < 30)
    per_second = Counter(int(at) for at, _ in told if at > 60)
    assert max(per_second.values()) < 150


def test_an_endpoint_under_way_is_not_due() -> None:
    schedule = schedule_of("a", "b")
    assert schedule.due(0) == ["a", "b"]
    assert schedule.due(1000) == []
    schedule.done("b", sent_at=0, busy=True, failed=False)
    assert schedule.due(1000) == ["b"]


def test_a_removed_endpoint_is_due_no_more() -> None:
    schedule = schedule_of("a", "b")
    schedule.remove("a")
    assert schedule.due(0) == ["b"]
    schedule.remove("b")
    schedule.done("b", sent_at=0, busy=True, failed=False)
    assert schedule.next_due() is None
    assert len(schedule) == 0


def test_an_endpoint_that_changed_while_under_way_is_due_at_once_but_not_before_it_is_done() -> None:
    schedule = schedule_of("a")
    schedule.due(0)
    schedule.add("a", 0.5)
    assert schedule.due(0.5) == []
    schedule.done("a", sent_at=0, busy=True, failed=True)
    assert schedule.due(0.5) == ["a"]


def test_an_endpoint_added_again_starts_anew() -> None:
    schedule = schedule_of("a")
    drive(schedule, 50, failed=lambda _: True)
    schedule.add("a", 50)
    assert drive(schedule, 52) == [(50, "a"), (51, "a"), (52, "a")]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "remove", "due", "done"])), max_size=40))
def test_no_endpoint_is_ever_scraped_twice_at_a_time(steps: list[tuple[str, str]]) -> None:
    schedule = Schedule(Pace(), lambda: 0.5)
    under_way: set[str] = set()
    present: set[str] = set()
    for now, (key, step) in enumerate(steps):
        if step == "add":
            schedule.add(key, now)
            present.add(key)
        elif step == "remove":
            schedule.remove(key)
            present.discard(key)
        elif step == "due":
            due = schedule.due(now)
            assert under_way.isdisjoint(due)
            assert present.issuperset(due)
            under_way.update(due)
        elif key in under_way:
            schedule.done(key, sent_at=now, busy=True, failed=False)
            under_way.discard(key)
    assert len(schedule) == len(present)


@pytest.mark.parametrize("n", [10, 1000])
@pytest.mark.parametrize("interval_s", [0.05, 1.0])
def test_scrapes_of_many_endpoints_stay_within_the_budget(n: int, interval_s: float) -> None:
    cost_s, chance = 0.0005, random.Random(1).random
    schedule = Schedule(Pace.of(interval_s), chance)
    schedule.cost_s = cost_s
    for number in range(n):
        schedule.add(str(number), 0.0)
    after_start = [at for at, _ in drive(schedule, 60) if at > 10]
    assert len(after_start) * cost_s / 50 <= 0.1
    assert schedule.interval_s(True) == pytest.approx(max(interval_s, n * cost_s / 0.1))


@given(st.floats(0.05, 10), st.integers(0, 5000), st.integers(0, 5000), st.floats(1e-5, 0.1))
def test_stretched_intervals_cost_no_more_than_the_budget(
    interval_s: float, busy: int, idle: int, cost_s: float
) -> None:
    pace = Pace.of(interval_s)
    stretch = pace.stretch(busy, idle, cost_s)
    assert stretch >= 1
    assert cost_s * (busy / pace.busy_s + idle / pace.idle_s) / stretch <= pace.budget_cores * 1.0001


def test_idle_endpoints_weigh_half_in_the_budget() -> None:
    schedule = schedule_of(*(str(n) for n in range(400)))
    schedule.cost_s = 0.001
    assert schedule.stretch == pytest.approx(4)
    drive(schedule, 0, busy=False)
    assert schedule.stretch == pytest.approx(2)


def test_removed_endpoints_weigh_nothing_in_the_budget() -> None:
    schedule = schedule_of(*(str(n) for n in range(400)))
    schedule.cost_s = 0.001
    for number in range(200):
        schedule.remove(str(number))
    assert schedule.stretch == pytest.approx(2)


def test_the_cost_follows_what_is_measured() -> None:
    schedule = schedule_of("a")
    for _ in range(300):
        schedule.spent(0.002)
    assert schedule.cost_s == pytest.approx(0.002, rel=0.01)


def test_an_interval_below_the_floor_is_raised() -> None:
    assert Pace.of(0.001) == Pace(0.05, 0.1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", 0.5),
        ("2s", 2),
        ("1m30s", 90),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1h", 3600),
        ("20us", 2e-5),
        ("20µs", 2e-5),
    ],
)
def test_durations_are_read_as_go_writes_them(text: str, expected: float) -> None:
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1s ", "1 s", "1d", "1s2", "0x1s"])
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(FeedError, match="is no duration; write a number with its unit"):
        seconds(text)
