"""The llm-d router's own test cases for what goes by predicted latency, as tables; whole vectors, tolerance 1e-4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from epp import Column, Refused
from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.latency import LatencyScorer, latency_slo_admitter, slo_headroom_tier_filter
from tests.scorer_kit import build

CLOSE = 1e-4
SLO_MS = 1000.0
ABSENT = None
"""An endpoint without a prediction."""
Headrooms = Sequence[tuple[float, float] | None]


def predicted(headrooms: Headrooms) -> tuple[Column, Column]:
    """predicted_ttft_ms and tpot_headroom_ms of endpoints with these (TTFT, TPOT) headrooms."""
    pairs = [pair or (SLO_MS, 0.0) for pair in headrooms]
    ttft = np.array([SLO_MS - first for first, _ in pairs])
    return ttft, np.array([each for _, each in pairs])


def scores(headrooms: Headrooms, *, columns: dict[str, Any] | None = None, **settings: object) -> Column:
    asked = request(slo_ttft_ms=SLO_MS, slo_tpot_ms=1.0)
    made = endpoints(**(columns or {"waiting": [0.0] * len(headrooms)}))
    nothing = np.zeros(len(headrooms))
    ttft, tpot = predicted(headrooms)
    found: Column = build(LatencyScorer, **settings)(asked, made, ttft, nothing, 0.0, tpot)
    return found


@pytest.mark.parametrize(
    ("settings", "headrooms", "columns", "expected"),
    [
        ({}, [(100, 20), (30, 5)], {"inflight": [1, 1]}, [0.01, 1.0]),
        ({"headroomSelectionStrategy": "most"}, [(100, 20), (30, 5)], {"inflight": [1, 1]}, [1.0, 0.01]),
        ({}, [(-10, -5), (-100, -30)], {"inflight": [1, 1]}, [1.0, 0.01]),
        ({"headroomSelectionStrategy": "most"}, [(-10, -5), (-100, -30)], {"inflight": [1, 1]}, [1.0, 0.01]),
        ({}, [(-10, -5), (-10, -5)], {"inflight": [0, 5]}, [0.51, 0.0]),
        ({}, [(100, 20), (-30, 5)], {"inflight": [1, 0]}, [0.51, 0.0]),
        ({}, [(-50, 5), (5, -2), (-5, -2)], {"inflight": [1, 1, 1]}, [0.0, 0.51, 0.0]),
        ({}, [(-50, 5), (-20, 5), (-5, -2)], {"inflight": [1, 1, 1]}, [0.01, 1.0, 0.0]),
        ({}, [None, (-20, 5)], {"inflight": [1, 1]}, [0.51, 0.0]),
        ({}, [(100, 5), (30, 5)], {"inflight": [1, 1]}, [0.01, 1.0]),
        ({"ttftWeight": 0, "tpotWeight": 0}, [(100, 5), (30, 50)], {"inflight": [1, 1]}, [0.01, 1.0]),
    ],
    ids=[
        "least headroom", "most headroom", "all break both", "all negative: always the least", "the idle one",
        "only those that keep both", "TPOT alone broken first", "then TTFT alone", "no prediction counts as kept",
        "only one dimension varies", "weights of 0: TTFT only",
    ],
)  # fmt: skip
def test_latency_scorer(
    settings: dict[str, object], headrooms: Headrooms, columns: dict[str, Any], expected: list[float]
) -> None:
    assert scores(headrooms, columns=columns, **settings) == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.6, 0.07]),
        ({"compositeKVWeight": 0, "compositeQueueWeight": 1, "compositePrefixWeight": 0}, [1.0, 0.0]),
        ({"compositeKVWeight": 0, "compositeQueueWeight": 0, "compositePrefixWeight": 0}, [0.8, 0.2]),
    ],
    ids=["equal weights", "queue only", "weights of 0: KV cache only"],
)
def test_latency_scorer_without_predictions(settings: dict[str, object], expected: list[float]) -> None:
    columns = {"kv_usage": [0.2, 0.8], "waiting": [0, 5]}
    assert scores([ABSENT, ABSENT], columns=columns, **settings) == pytest.approx(expected, abs=CLOSE)


def test_latency_scorer_without_predictions_counts_the_cached_share_of_the_prompt() -> None:
    scorer, nothing = LatencyScorer(), np.zeros(2)
    made = endpoints(waiting=[0, 0], kv_usage=[1, 1])
    found = scorer(request(), made, nothing, np.array([5.0, 10.0]), 10.0, nothing)
    assert found == pytest.approx([0.5, 0.67], abs=CLOSE)


@pytest.mark.parametrize(
    ("epsilon", "headrooms", "kept"),
    [
        (0.0, [(5, 5), (5, 5), (-5, 5)], [True, True, False]),
        (1.0, [(5, 5), (-5, 5)], [False, True]),
        (1.0, [(5, 5), ABSENT], [False, True]),
        (0.0, [(5, -5), (-5, 5)], [True, True]),
        (0.5, [ABSENT, ABSENT], [True, True]),
        (0.0, [(0, 0), (-1, 0)], [True, False]),
    ],
    ids=["keepers", "exploring", "no prediction is with the others", "no keeper", "no predictions", "just kept"],
)
def test_slo_headroom_tier_filter(epsilon: float, headrooms: Headrooms, kept: list[bool]) -> None:
    asked, rng = request(slo_ttft_ms=SLO_MS, slo_tpot_ms=1.0), np.random.default_rng(0)
    found = slo_headroom_tier_filter(asked, rng, *predicted(headrooms), epsilon_explore_neg=epsilon)
    assert list(found) == kept


def test_slo_headroom_tier_filter_refuses_a_probability_above_1() -> None:
    with pytest.raises(PluginError, match="epsilonExploreNeg"):
        build(slo_headroom_tier_filter, epsilonExploreNeg=1.5)


BUSY = {"running": [3, 3], "kv_usage": [0.5, 0.5]}
BROKEN = [(-5.0, -5.0), (-5.0, -5.0)]


@pytest.mark.parametrize(
    ("fields", "headrooms", "columns", "refused"),
    [
        ({"priority": -1, "slo_ttft_ms": SLO_MS}, BROKEN, BUSY, True),
        ({"priority": 0, "slo_ttft_ms": SLO_MS}, BROKEN, BUSY, False),
        ({"priority": -1}, BROKEN, BUSY, False),
        ({"priority": -1, "slo_ttft_ms": SLO_MS}, [ABSENT, ABSENT], BUSY, False),
        ({"priority": -1, "slo_ttft_ms": SLO_MS}, [(-5, -5), (5, 5)], BUSY, False),
        ({"priority": -1, "slo_ttft_ms": SLO_MS}, BROKEN, {**BUSY, "running": [3, 0]}, False),
        ({"priority": -1, "slo_ttft_ms": SLO_MS}, BROKEN, {**BUSY, "kv_usage": [0.5, 0.01]}, False),
        ({"priority": -1, "slo_tpot_ms": 10.0}, [(-5, -5), (5, -5)], BUSY, True),
    ],
    ids=["refused", "not sheddable", "no SLO", "no predictions", "one keeps it", "one idle", "one cold", "TPOT only"],
)
def test_latency_slo_admitter(
    fields: dict[str, Any], headrooms: Headrooms, columns: dict[str, Any], refused: bool
) -> None:
    answer = latency_slo_admitter(request(**fields), endpoints(**columns), *predicted(headrooms))
    assert isinstance(answer, Refused) == refused
    assert answer is None or (answer.status, answer.reason) == (429, "rejected-saturated")
