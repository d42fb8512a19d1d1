"""The llm-d router's own test cases for scorers, filters and pickers, as tables; whole vectors, tolerance 1e-4."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epp import Endpoints
from epp.pool.table import Pool
from epp.settings import PluginError
from epp.testing import endpoints, request
from epp.types import Change
from scorers.attributes import EndpointAttributeScorer
from scorers.context_length import ContextLengthAware, parse_range
from scorers.load import (
    ActiveRequestScorer,
    kv_cache_utilization_scorer,
    load_aware_scorer,
    queue_scorer,
    running_requests_size_scorer,
    token_load_scorer,
)
from scorers.lora import LoraAffinityScorer
from scorers.no_hit_lru import NoHitLruScorer
from scorers.prefix import PrefixCacheScorer
from scorers.tokens import Tokens
from tests.scorer_kit import build, called, decided, table

CLOSE = 1e-4
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("column", ["waiting", "running"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [([10, 5, 0], [0, 0.5, 1]), ([5, 5], [1, 1]), ([0, 0], [1, 1])],
    ids=["spread", "equal", "idle"],
)
def test_queue_and_running_scorers(column: str, values: list[float], expected: list[float]) -> None:
    scorer = queue_scorer if column == "waiting" else running_requests_size_scorer
    assert scorer(endpoints(**{column: values})) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [([0.8, 0.5, 0], [0.2, 0.5, 1]), ([0.6, 0.6], [0.4, 0.4]), ([1.0, 0.5], [0, 0.5])],
    ids=["spread", "equal", "full"],
)
def test_kv_cache_utilization_scorer(usage: list[float], expected: list[float]) -> None:
    assert kv_cache_utilization_scorer(endpoints(kv_usage=usage)) == pytest.approx(expected, abs=CLOSE)


def test_load_aware_scorer() -> None:
    assert load_aware_scorer(endpoints(waiting=[2, 0, 15]), threshold=10) == pytest.approx([0.4, 0.5, 0], abs=CLOSE)


@pytest.mark.parametrize(
    ("settings", "inflight", "expected"),
    [
        ({}, [3, 0, 6], [0.5, 1, 0]),
        ({}, [4, 0, 1], [0, 1, 0.75]),
        ({}, [3, 11], [8 / 11, 0]),
        ({}, [0, 0, 0], [1, 1, 1]),
        ({"idleThreshold": 0, "maxBusyScore": 0}, [1, 0], [0, 1]),
        ({"idleThreshold": 1, "maxBusyScore": 0.5}, [1, 2, 0], [1, 0, 1]),
    ],
    ids=["spread", "one-missing", "no-idle", "no-load", "busy-counts-0", "idle-up-to-1"],
)
def test_active_request_scorer(settings: dict[str, Any], inflight: list[float], expected: list[float]) -> None:
    scorer = build(ActiveRequestScorer, **settings)
    assert scorer(endpoints(inflight=inflight)) == pytest.approx(expected, abs=CLOSE)


def test_active_requests_are_counted_from_pick_to_end() -> None:
    pool, scorer = Pool(), ActiveRequestScorer()
    pool.apply(Change(present=(called("a"), called("b"))))
    charge = pool.ledger.charge("default/a")
    assert list(scorer(pool.snapshot(0.0))) == [0, 1]
    charge.close()
    assert list(scorer(pool.snapshot(0.0))) == [1, 1]


@pytest.mark.parametrize(
    ("inflight", "uncached", "expected"),
    [
        ([0, 500, 1000], [0, 0, 0], [1, 0.5, 0]),
        ([0, 250, 750], [250, 250, 250], [0.75, 0.5, 0]),
        ([0, 0], [0, 0], [1, 1]),
    ],
    ids=["in-flight", "with-request", "missing"],
)
def test_token_load_scorer(inflight: list[float], uncached: list[float], expected: list[float]) -> None:
    scores = token_load_scorer(endpoints(inflight_tokens=inflight), np.array(uncached), queue_threshold_tokens=1000)
    assert scores == pytest.approx(expected, abs=CLOSE)


def test_lora_affinity_scorer() -> None:
    loras = [(["A"], []), (["B"], ["A"]), (["B"], []), (["C"], ["A"]), (["D", "E"], []), ([], [])]
    made = endpoints(loras=loras, max_loras=[5, 5, 2, 2, 2, 0])
    assert list(LoraAffinityScorer()(request(model="A"), made)) == [1, 0.8, 0.8, 0.6, 0, 0]


@pytest.mark.parametrize(
    ("algorithm", "values", "expected"),
    [
        ("linear_lower_is_better", [10, 5, 0], [0, 0.5, 1]),
        ("linear_higher_is_better", [10, 5, 0], [1, 0.5, 0]),
        ("linear_lower_is_better", [7, 7], [1, 1]),
        ("linear_lower_is_better", [10, None, 0], [0, 0, 1]),
    ],
    ids=["lower", "higher", "equal", "missing"],
)
def test_endpoint_attribute_scorer(algorithm: str, values: list[float | None], expected: list[float]) -> None:
    scorer = build(EndpointAttributeScorer, attributeKey="temperature", algorithm={"type": algorithm})
    assert list(scorer(endpoints(attributes={"temperature": values}))) == expected


def prefix_scores(cached: list[float], total: float, block: float = 64.0, **settings: object) -> Any:
    return build(PrefixCacheScorer, **settings)(np.array(cached, dtype=np.float64), total, block)


def test_prefix_cache_scorer_is_the_share_of_blocks() -> None:
    assert prefix_scores([5, 2, 0], 10) == pytest.approx([0.5, 0.2, 0], abs=CLOSE)
    assert list(prefix_scores([0, 0], 0)) == [0, 0]


@pytest.mark.parametrize(("cached", "total", "expected"), [(5, 10, 0.25125), (50, 100, 0.375)])
def test_prefix_cache_scorer_with_match_length(cached: float, total: float, expected: float) -> None:
    settings = {"matchLengthWeight": 0.5, "matchLengthScaleTokens": 100}
    assert prefix_scores([cached], total, 1.0, **settings) == pytest.approx([expected], abs=CLOSE)


@pytest.mark.parametrize(
    "settings",
    [
        {"matchLengthWeight": -0.1},
        {"matchLengthWeight": 1.1},
        {"matchLengthWeight": 0.5, "matchLengthScaleTokens": 0},
    ],
    ids=["negative", "above-1", "no-scale"],
)
def test_prefix_cache_scorer_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises((PluginError, ValueError), match="matchLength"):
        build(PrefixCacheScorer, **settings)


def test_prefix_cache_scorer_scales_by_8192_tokens_unless_told() -> None:
    assert prefix_scores([4096], 8192, 1.0, matchLengthWeight=1.0) == pytest.approx([0.25], abs=CLOSE)


def lru_scores(scorer: NoHitLruScorer, made: Endpoints, cached: list[float]) -> list[float]:
    return list(scorer(request(), made, np.array(cached, dtype=np.float64)))


@pytest.mark.parametrize(
    ("cached", "expected"),
    [([0, 0, 0], [1, 0.5, 0]), ([0, 3, 0], [0.5, 0.5, 0.5]), ([0], [1])],
    ids=["cold", "warm", "single"],
)
def test_no_hit_lru_scorer_never_used(cached: list[float], expected: list[float]) -> None:
    assert lru_scores(NoHitLruScorer(), table(*"abc"[: len(cached)]), cached) == expected


def test_no_hit_lru_scorer_sequence() -> None:
    scorer, made = NoHitLruScorer(), table("a", "b", "c")

    def send(cached: list[float], to: str) -> list[float]:
        asked = request()
        scores = list(scorer(asked, made, np.array(cached, dtype=np.float64)))
        scorer.picked(asked, decided(asked, made, {"default": to}))
        return scores

    assert send([0, 0, 0], "a") == [1, 0.5, 0]
    assert send([0, 0, 0], "b") == [0, 1, 0.5]
    assert send([1, 0, 0], "a") == [0.5, 0.5, 0.5]
    assert send([0, 0, 0], "c") == [0.5, 0, 1]
    assert send([0, 0, 0], "a") == [1, 0.5, 0]


def test_no_hit_lru_scorer_remembers_prefill_and_decode() -> None:
    scorer, made = NoHitLruScorer(), table("pA", "pB", "dA", "dB")
    asked = request()
    scorer(asked, made, np.zeros(4))
    scorer.picked(asked, decided(asked, made, {"decode": "dA", "prefill": "pA"}))
    for rows in (np.array([0, 1]), np.array([2, 3])):
        used, unused = scorer(request(), made.take(rows), np.zeros(2))
        assert unused > used


def length_scores(length: int, *ranges: str | None) -> list[float]:
    labels = [{} if text is None else {"llm-d.ai/context-length-range": text} for text in ranges]
    return list(ContextLengthAware().score(endpoints(labels=labels), Tokens(count=length)))


@pytest.mark.parametrize(
    ("length", "ranges", "expected"),
    [
        (0, ["0-20", "0-10000", "500-1000", None], [0.999022, 0.755, 0.2, 0.5]),
        (9000, ["0-2048", "0-8192"], [0.037726, 0.165929]),
        (50, ["500-2048", "100-1024"], [0.206897, 0.285714]),
        (5, ["5-5", "6-6"], [1.0, 0.2997]),
        (14999, ["0-15000", "15001-20000"], [0.496014, 0.299401]),
    ],
    ids=["empty", "too-long", "too-short", "one-length", "at-the-edge"],
)
def test_context_length_aware_scores(length: int, ranges: list[str | None], expected: list[float]) -> None:
    assert length_scores(length, *ranges) == pytest.approx(expected, abs=1e-6)


def test_context_length_aware_filters() -> None:
    texts = ["0-100", "100-500", "0-2000", None]
    made = endpoints(labels=[{} if text is None else {"llm-d.ai/context-length-range": text} for text in texts])
    kept = build(ContextLengthAware, enableFiltering=True).filter(made, Tokens())
    assert list(kept) == [True, False, True, True]


@pytest.mark.parametrize("text", ["", "0-100-200", "100-50", "abc-100"])
def test_context_length_aware_knows_a_bad_range(text: str) -> None:
    assert parse_range(text) == (np.inf, -np.inf)


def test_context_length_aware_needs_a_label() -> None:
    with pytest.raises(PluginError, match="label"):
        build(ContextLengthAware, label="")
