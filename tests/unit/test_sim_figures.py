import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.figures import Figures, Quantiles, Row, imbalance, seconds, share, table
from sim.progress import Progress

SLOW = Figures(100, 4, 10.0, Quantiles(2.0, 4.0, 8.0), 0.25, 1.5)
FAST = Figures(100, 0, 10.0, Quantiles(0.05, 0.4, 1.0), 0.5, 1.2)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_two_runs_are_set_beside_each_other_with_their_ratio() -> None:
    assert table({"random": SLOW, "default": FAST}).splitlines() == [
        "                                           random    default      ratio",
        "───────────────────────────────────────────────────────────────────────",
        "requests/s                                   9.60      10.00     × 1.04",
        "TTFT p50                                   2.00 s      50 ms    × 0.025",
        "TTFT p90                                   4.00 s     400 ms     × 0.10",
        "TTFT p99                                   8.00 s     1.00 s     × 0.12",
        "prefix-cache hit share                     25.0 %     50.0 %     × 2.00",
        "load imbalance (busiest engine ÷ mean)       1.50       1.20     × 0.80",
        "errors                                          4          0     × 0.00",
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_other_than_two_runs_have_no_ratio(count: int) -> None:
    shown = table({f"run {number}": SLOW for number in range(count)}).splitlines()
    assert "ratio" not in shown[0]
    assert shown[2].split() == ["requests/s", *["9.60"] * count]


def test_nothing_has_no_ratio_to_nothing() -> None:
    assert Row("errors", [0, 3], "{:.0f}".format).cells() == ["0", "3", "–"]


def test_more_lines_go_below() -> None:
    assert table({"a": SLOW}, [Row("CPU time", [1.25], seconds)]).splitlines()[-1].split() == [
        "CPU",
        "time",
        "1.25",
        "s",
    ]


def test_errors_are_not_answered_requests() -> None:
    assert SLOW.per_s == 9.6
    assert Figures(0, 0, 0.0, Quantiles.of([]), 0.0, 1.0).per_s == 0.0


@pytest.mark.parametrize(
    ("requests", "expected"), [([1, 1, 1, 1], 1.0), ([4, 0, 0, 0], 4.0), ([3, 1], 1.5), ([0, 0], 1.0)], ids=str
)
def test_imbalance_is_the_busiest_over_the_mean(requests: list[float], expected: float) -> None:
    assert imbalance(requests) == expected


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_imbalance_lies_between_one_and_the_number_of_engines(requests: list[int]) -> None:
    assert 1.0 - 1e-9 <= imbalance(requests) <= len(requests) + 1e-9


@pytest.mark.parametrize(("value", "shown"), [(0.0, "0 ms"), (0.0126, "13 ms"), (1.0, "1.00 s"), (12.345, "12.35 s")])
def test_times_are_shown_in_what_reads_best(value: float, shown: str) -> None:
    assert seconds(value) == shown


def test_shares_are_percentages() -> None:
    assert share(0.4567) == "45.7 %"


def test_on_a_terminal_the_line_is_written_over() -> None:
    terminal, now = Terminal(), [0.0]
    progress = Progress(terminal, clock=lambda: now[0])
    progress.stage("starting")
    progress.step("too soon")
    now[0] = 1.0
    progress.step("1 of 9")
    progress.clear()
    assert terminal.getvalue() == "\rstarting\033[K\r1 of 9\033[K\r\033[K"


def test_elsewhere_it_is_a_plain_line_now_and_then() -> None:
    log, now = io.StringIO(), [100.0]
    progress = Progress(log, clock=lambda: now[0])
    for at in range(100, 126):
        now[0] = float(at)
        progress.step(f"at {at}")
    progress.stage("done")
    progress.clear()
    assert log.getvalue() == "at 110\nat 120\ndone\n"
