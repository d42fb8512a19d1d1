"""docs/routing-quality.md tells what was measured."""

from __future__ import annotations

from benchmarks.routing_page import BEGIN, END, PAGE, generated, results


def test_the_page_says_what_the_results_say() -> None:
    told = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].strip()
    assert told == generated(results(), results("routing_dynamo"))
