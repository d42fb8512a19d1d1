"""docs/performance.md and the results it is made from."""

from __future__ import annotations

import pytest

from benchmarks.page import PAGE, Row, load, page


def test_the_page_says_what_the_results_say() -> None:
    assert PAGE.read_text() == page(load()), "python -m benchmarks.page writes it anew"


@pytest.mark.parametrize(
    ("reached", "said"),
    [
        pytest.param(0.3, "| x | ≤ 0.4 × | 0.3 × | 0.75 | met |", id="met"),
        pytest.param(0.6, "| x | ≤ 0.4 × | 0.6 × | 1.50 | **missed**, 50% over |", id="missed"),
        pytest.param(None, "| x | ≤ 0.4 × | not measured | | |", id="not measured"),
    ],
)
def test_a_row_says_whether_its_figure_was_reached(reached: float | None, said: str) -> None:
    assert Row("x", " ×", 0.4, reached, "server").line().startswith(said)


def test_without_results_nothing_is_made_up() -> None:
    assert "| met |" not in page({})
