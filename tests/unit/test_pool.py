"""The pool: columns, the in-flight correction, staleness, the ledger's law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.ledger import Ledger
from epp.pool.load import Readings, net_load
from epp.pool.table import Pool
from epp.types import COLUMNS, Change, Endpoint, Reading

A, B, C = (Endpoint(name, f"10.0.0.{row}", 8000) for row, name in enumerate("abc", 1))


def pool(*endpoints: Endpoint) -> Pool:
    made = Pool()
    made.apply(Change(present=endpoints))
    return made


def read(made: Pool, endpoint: Endpoint, now: float = 0.0, interval_s: float = 1.0, **values: float) -> None:
    made.sent(endpoint.key)
    made.update(endpoint.key, Reading(**values), now, interval_s)


@pytest.mark.parametrize(
    ("waiting", "running", "net", "most", "expected"),
    [
        pytest.param(3, 5, 0, 8, (3, 5), id="nothing sent: the reading"),
        pytest.param(0, 5, 2, 8, (0, 7), id="sent requests take the free seats"),
        pytest.param(0, 5, 5, 8, (2, 8), id="and queue beyond them"),
        pytest.param(4, 8, 3, 8, (7, 8), id="a full engine queues all"),
        pytest.param(0, 5, -2, 8, (0, 3), id="finished ones leave their seats"),
        pytest.param(0, 1, -4, 8, (0, 0), id="never below nothing"),
    ],
)
def test_a_reading_is_corrected_by_what_was_sent_and_finished_since(
    waiting: float, running: float, net: float, most: float, expected: tuple[float, float]
) -> None:
    assert net_load(waiting, running, net, most) == expected


loads = st.floats(0, 1000)


@given(st.lists(st.tuples(*[loads] * 5, st.floats(0, 1), st.floats(0, 1)), max_size=8))
def test_the_correction_is_the_same_for_a_row_and_for_columns(rows: list[tuple[float, ...]]) -> None:
    names = ("waiting", "running", "inflight", "inflight_then", "most_running", "kv_usage", "kv_each")
    readings = Readings(len(rows))
    for number, row in enumerate(rows):
        for name, value in zip(names, row, strict=True):
            getattr(readings, name)[number] = value
        readings.note(number)
    together = np.array(readings.net_all()).T.tolist()
    assert [tuple(each) for each in together] == [row.net() for row in readings.rows]


@given(loads, loads, st.floats(0, 1000), loads)
def test_the_correction_loses_no_request_that_was_sent(w: float, r: float, net: float, most: float) -> None:
    waiting, running = net_load(w, r, net, most)
    assert waiting + running == pytest.approx(w + r + net)


def test_a_pick_shows_at_once_in_waiting_and_running() -> None:
    made = pool(A, B)
    read(made, A, waiting=0, running=4)
    read(made, B, waiting=0, running=4)
    made.snapshot(0.0)
    charge = made.ledger.charge(A.key, until_first=100)
    seen = made.snapshot(0.1)
    assert (seen.waiting.tolist(), seen.running.tolist()) == ([1, 0], [4, 4])
    assert (seen.inflight.tolist(), seen.inflight_tokens.tolist()) == ([1, 0], [100, 0])
    charge.close()
    assert made.snapshot(0.2).waiting.tolist() == [0, 0]


def test_what_was_in_flight_when_the_scrape_went_out_is_in_its_answer() -> None:
    made = pool(A)
    read(made, A, waiting=0, running=2)
    made.ledger.charge(A.key)
    made.sent(A.key)
    made.ledger.charge(A.key)
    made.update(A.key, Reading(waiting=0, running=3), 1.0, 1.0)
    assert made.snapshot(1.0).waiting.tolist() == [1]


def test_kv_usage_follows_the_requests_that_took_or_left_a_seat() -> None:
    made = pool(A, B)
    read(made, A, waiting=0, running=8, kv_usage=0.8)
    read(made, B, waiting=0, running=8, kv_usage=0.4)
    charges = [made.ledger.charge(A.key) for _ in range(2)]
    read(made, A, waiting=0, running=4, kv_usage=0.2)
    made.ledger.charge(A.key)
    assert made.snapshot(0.0).kv_usage.tolist() == pytest.approx([0.25, 0.4])
    for charge in charges:
        charge.close()
    assert made.snapshot(0.0).kv_usage.tolist() == pytest.approx([0.15, 0.4])


def test_an_idle_endpoint_fills_at_the_rate_its_requests_had_when_it_last_ran_any() -> None:
    made = pool(A)
    read(made, A, waiting=0, running=4, kv_usage=0.4)
    read(made, A, waiting=0, running=0, kv_usage=0.0)
    for _ in range(20):
        made.ledger.charge(A.key)
    seen = made.snapshot(0.0)
    assert (seen.running.tolist(), seen.kv_usage.tolist()) == ([4], pytest.approx([0.4]))


def test_an_endpoint_nothing_fresh_is_known_of_holds_the_mean_of_the_others() -> None:
    made = pool(A, B, C)
    read(made, A, waiting=2, running=1, kv_usage=0.2)
    read(made, B, waiting=4, running=3, kv_usage=0.6)
    seen = made.snapshot(0.0)
    assert seen.known.tolist() == [True, True, False]
    assert (seen.waiting.tolist(), seen.kv_usage.tolist()) == ([2, 4, 3], [0.2, 0.6, 0.4])


def test_with_nothing_known_at_all_columns_are_zero_and_finite() -> None:
    seen = pool(A, B).snapshot(0.0)
    assert all(np.isfinite(seen.column(name)).all() for name in COLUMNS)
    assert (seen.waiting.tolist(), seen.known.tolist()) == ([0, 0], [False, False])


def test_an_empty_pool_has_every_column() -> None:
    for made in (Pool(), pool()):
        seen = made.snapshot(0.0)
        assert [len(seen.column(name)) for name in COLUMNS] == [0] * len(COLUMNS)
        assert (len(seen), len(seen.fresh(2.0))) == (0, 0)


@pytest.mark.parametrize(("interval_s", "fresh_until"), [(0.05, 2.0), (1.0, 3.0), (4.0, 12.0)])
def test_a_reading_is_stale_beyond_the_threshold_or_three_intervals(interval_s: float, fresh_until: float) -> None:
    made = pool(A)
    read(made, A, interval_s=interval_s, waiting=1)
    assert made.snapshot(fresh_until).known.tolist() == [True]
    assert made.snapshot(fresh_until + 0.01).known.tolist() == [False]


def test_readings_survive_other_endpoints_coming_and_going() -> None:
    made = pool(A, B)
    read(made, B, waiting=7, attributes={"x": 3.0})
    made.ledger.charge(B.key)
    made.apply(Change(present=(C,), gone=(A.key,)))
    seen = made.snapshot(0.0)
    assert [record.name for record in seen.records] == ["b", "c"]
    assert seen.inflight.tolist() == [1, 0]
    assert [column.tolist() for column in seen.attribute("x")] == [[3, 0], [True, False]]


def test_an_endpoint_that_comes_back_still_has_its_requests_in_flight() -> None:
    made = pool(A)
    made.ledger.charge(A.key)
    made.apply(Change(gone=(A.key,)))
    made.apply(Change(present=(A,)))
    assert made.snapshot(0.0).inflight.tolist() == [1]


def test_a_load_report_counts_as_a_reading_of_now() -> None:
    made = pool(A)
    read(made, A, waiting=0, running=5)
    made.ledger.charge(A.key)
    made.reported(A.key, Reading(waiting=2), 1.0)
    seen = made.snapshot(1.0)
    assert (seen.waiting.tolist(), seen.age_s.tolist()) == ([2], [0])


def test_columns_cannot_be_written() -> None:
    seen = pool(A).snapshot(0.0)
    with pytest.raises(ValueError, match="read-only"):
        seen.waiting[0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        seen.take(np.array([0])).waiting[0] = 1.0


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e6), st.floats(0, 1e6)), max_size=20), st.data())
def test_charged_is_refunded_plus_in_flight(charges: list[tuple[str, float, float]], data: st.DataObject) -> None:
    ledger = Ledger(lambda *_: None)
    live = []
    for key, first, end in charges:
        live.append((key, ledger.charge(key, until_first=first, until_end=end)))
        if data.draw(st.booleans()):
            _, charge = live.pop(data.draw(st.integers(0, len(live) - 1)))
            charge.first_piece()
            charge.close()
            charge.close()
            charge.first_piece()
    assert ledger.requests == len(live)
    for _, charge in live:
        charge.close()
    assert [(ledger.load(key).requests, ledger.load(key).tokens) for key in "ab"] == [(0, 0.0), (0, 0.0)]


@given(st.lists(st.tuples(st.sampled_from("rcub"), st.sampled_from("abc"), st.integers(0, 50)), max_size=30))
def test_row_by_row_updates_show_what_a_full_refresh_would(steps: list[tuple[str, str, int]]) -> None:
    made = pool(A, B, C)
    keys = {e.name: e.key for e in (A, B, C)}
    open_charges = []
    for now, (kind, name, number) in enumerate(steps):
        key = keys[name]
        if kind == "r":
            made.sent(key)
            made.update(key, Reading(waiting=number, running=number / 2), now * 0.01, 1.0)
        elif kind == "c":
            open_charges.append(made.ledger.charge(key, until_first=number))
        elif kind == "u" and open_charges:
            open_charges.pop().close()
        elif kind == "b":
            made.snapshot(now * 0.01)
    end = len(steps) * 0.01
    shown = [made.snapshot(end).column(name).tolist() for name in COLUMNS]
    made._stale = True
    assert shown == [made.snapshot(end).column(name).tolist() for name in COLUMNS]
