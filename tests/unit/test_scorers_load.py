from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.attributes import EndpointAttributeFilter, EndpointAttributeScorer, attribute_name
from scorers.inflight import InflightLoadProducer
from scorers.load import ActiveRequestScorer, UtilizationFilter, load_aware_scorer
from scorers.lora import LoraAffinityScorer
from scorers.prefix import PrefixCacheAffinityFilter
from scorers.tokens import Tokens
from tests.scorer_kit import build, measured

BUSY = endpoints(waiting=[0, 5, 6], running=[1, 1, 1], inflight=[2, 3, 4], kv_usage=[0.1, 0.95, 0.1])


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([("waiting-queue", 5)], [True, True, False]),
        ([("running-requests", 0)], [False, False, False]),
        ([("active-requests", 3)], [True, True, False]),
        ([("kv-cache-utilization", 0.9)], [True, False, True]),
        ([("waiting-queue", 5), ("kv-cache-utilization", 0.9)], [True, False, False]),
    ],
    ids=["waiting", "running", "active", "kv", "both"],
)
def test_endpoints_within_every_limit_are_kept(conditions: list[tuple[str, float]], kept: list[bool]) -> None:
    settings = [{"metric": metric, "maxValue": most} for metric, most in conditions]
    assert list(build(UtilizationFilter, conditions=settings)(BUSY)) == kept


def test_where_all_are_over_the_limit_all_may_be_kept() -> None:
    limit = [{"metric": "running-requests", "maxValue": 0}]
    assert list(build(UtilizationFilter, conditions=limit, fallbackOnEmpty=True)(BUSY)) == [True, True, True]


def test_a_fallback_changes_nothing_where_some_are_kept() -> None:
    limit = [{"metric": "waiting-queue", "maxValue": 5}]
    assert list(build(UtilizationFilter, conditions=limit, fallbackOnEmpty=True)(BUSY)) == [True, True, False]


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([], "conditions"),
        ([{"metric": "kv-cache-utilization", "maxValue": 90}], "share"),
        ([{"metric": "waiting-queue", "maxValue": -1}], "maxValue"),
        ([{"metric": "waiting-queue"}], "maxValue"),
        ([{"metric": "queue", "maxValue": 1}], "queue"),
    ],
    ids=["none", "percent", "negative", "missing", "unknown"],
)
def test_limits_that_make_no_sense_are_refused(conditions: list[dict[str, Any]], said: str) -> None:
    with pytest.raises((PluginError, ValueError), match=said):
        build(UtilizationFilter, conditions=conditions)


@pytest.mark.parametrize("threshold", [0, -1, 128])
def test_a_threshold_of_nothing_is_the_default(threshold: int) -> None:
    assert list(load_aware_scorer(endpoints(waiting=[64]), threshold=threshold)) == [0.25]


def test_settings_out_of_range_fall_back_where_the_router_does() -> None:
    scorer = build(ActiveRequestScorer, idleThreshold=-3, maxBusyScore=7)
    assert list(scorer(endpoints(inflight=[1, 2]))) == [0.5, 0]


def test_the_deprecated_timeout_is_accepted_with_a_warning() -> None:
    assert "requestTimeout" in build(ActiveRequestScorer, requestTimeout="2m").warnings[0]


@pytest.mark.parametrize(
    ("cached", "blocks", "size", "cost"),
    [
        (None, 0.0, 0.0, [100, 100]),
        ([0.0, 1.0], 2.0, 64.0, [128, 64]),
        ([0.0, 1.0], 1.0, 64.0, [100, 36]),
        ([0.0, 9.0], 2.0, 64.0, [128, 0]),
    ],
    ids=["no-prefix", "whole-blocks", "beyond-the-blocks", "more-than-there-is"],
)
def test_a_request_costs_its_uncached_tokens(
    cached: list[float] | None, blocks: float, size: float, cost: list[float]
) -> None:
    column = None if cached is None else np.array(cached)
    made = endpoints(waiting=[0, 0])
    found = measured(InflightLoadProducer(), request(), made, Tokens(count=100), column, blocks, size)
    assert list(found["uncached_tokens"]) == cost
    until_first, until_end = found["inflight_charge"]
    assert (list(until_first), list(until_end)) == (cost, [0, 0])


@pytest.mark.parametrize(
    ("settings", "limit", "cost"),
    [
        ({}, None, 250),
        ({"outputRatio": 0.125}, None, 113),
        ({"maxEstimatedOutputTokens": 20}, None, 120),
        ({}, 7, 107),
        ({"maxEstimatedOutputTokens": 20}, 30, 120),
    ],
    ids=["ratio", "rounded-up", "configured-limit", "requests-limit", "lower-limit"],
)
def test_an_estimated_output_is_charged_until_the_end(settings: dict[str, Any], limit: int | None, cost: float) -> None:
    producer = build(InflightLoadProducer, addEstimatedOutputTokens=True, **settings)
    found = measured(producer, request(max_output_tokens=limit), endpoints(waiting=[0]), Tokens(count=100))
    until_first, until_end = found["inflight_charge"]
    assert (list(until_first), list(until_end), list(found["uncached_tokens"])) == ([0], [cost], [cost])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [True, False, True]),
        ({"onMissing": "Fail"}, [True, False, False]),
    ],
    ids=["pass", "fail"],
)
def test_an_attribute_filter_decides_about_the_missing(settings: dict[str, Any], kept: list[bool]) -> None:
    algorithm = {"type": "threshold", "threshold": {"operator": "LessThan", "value": 5}}
    chosen = build(EndpointAttributeFilter, attribute="heat", algorithm=algorithm, **settings)
    assert list(chosen(endpoints(attributes={"heat": [4.0, 5.0, None]}))) == kept


@pytest.mark.parametrize(
    ("operator", "kept"),
    [
        ("LessThan", [True, False, False]),
        ("LessThanOrEqual", [True, True, False]),
        ("GreaterThan", [False, False, True]),
        ("GreaterThanOrEqual", [False, True, True]),
        ("Equal", [False, True, False]),
        ("NotEqual", [True, False, True]),
    ],
)
def test_an_attribute_filter_compares(operator: str, kept: list[bool]) -> None:
    algorithm = {"type": "threshold", "threshold": {"operator": operator, "value": 5}}
    chosen = build(EndpointAttributeFilter, attribute="heat", algorithm=algorithm)
    assert list(chosen(endpoints(attributes={"heat": [4.0, 5.0, 6.0]}))) == kept


@pytest.mark.parametrize(("limit", "kept"), [(0, [True, True]), (5, [True, False])], ids=["none-left", "one-left"])
def test_an_attribute_filter_may_fall_back_to_all(limit: float, kept: list[bool]) -> None:
    algorithm = {"type": "threshold", "threshold": {"operator": "LessThan", "value": limit}}
    chosen = build(EndpointAttributeFilter, attribute="heat", algorithm=algorithm, fallbackOnEmpty=True)
    assert list(chosen(endpoints(attributes={"heat": [4.0, 5.0]}))) == kept


@pytest.mark.parametrize(
    ("algorithm", "scores"),
    [("linear_lower_is_better", [1, 0.5, 0, 0]), ("linear_higher_is_better", [0, 0.5, 1, 0])],
)
def test_a_fixed_range_clamps(algorithm: str, scores: list[float]) -> None:
    how = {"type": algorithm, "normalization": {"fixedRange": {"min": 10, "max": 20}}}
    made = endpoints(attributes={"heat": [5.0, 15.0, 25.0, None]})
    assert list(build(EndpointAttributeScorer, attributeKey="heat", algorithm=how)(made)) == scores


@pytest.mark.parametrize(
    ("normalization", "said"),
    [
        ({"fixedRange": {"min": 1, "max": 1}}, "less than max"),
        ({"fixedRange": {"min": 0, "max": 1}, "adaptiveRange": {}}, "not both"),
    ],
    ids=["empty-range", "both"],
)
def test_a_normalization_that_makes_no_sense_is_refused(normalization: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        build(
            EndpointAttributeScorer,
            attributeKey="heat",
            algorithm={"type": "linear_lower_is_better", "normalization": normalization},
        )


@pytest.mark.parametrize(
    ("producer", "name"),
    [(None, "heat"), ("core-metrics-extractor", "heat"), ("", "heat"), ("dcgm-extractor", "heat/dcgm-extractor")],
)
def test_an_attribute_is_named_with_its_producer(producer: str | None, name: str) -> None:
    assert attribute_name("heat", producer) == name


def test_a_custom_metric_has_no_slash() -> None:
    with pytest.raises(ValueError, match="producer"):
        build(EndpointAttributeScorer, attributeKey="a/b", algorithm={"type": "linear_lower_is_better"})


def test_changed_adapters_are_seen() -> None:
    scorer, asked = LoraAffinityScorer(), request(model="A")
    assert list(scorer(asked, endpoints(loras=[(["A"], []), ([], [])], max_loras=[1, 1]))) == [1, 0.8]
    assert list(scorer(asked, endpoints(loras=[(["B"], []), (["A"], [])], max_loras=[1, 1]))) == [0, 1]
    assert list(scorer(asked, endpoints())) == []


def test_where_everyone_holds_the_prompt_everyone_is_kept() -> None:
    made, cached = endpoints(inflight_tokens=[0, 1e9]), np.array([8.0, 8.0])
    kept = PrefixCacheAffinityFilter().filter(made, np.random.default_rng(0), cached, 8.0, None)
    assert list(kept) == [True, True]


def test_exploration_keeps_everyone_as_often_as_configured() -> None:
    chosen = build(PrefixCacheAffinityFilter, explorationProbability=0.25)
    made, rng, cached = endpoints(waiting=[0, 0]), np.random.default_rng(7), np.array([8.0, 0.0])
    everyone = sum(bool(chosen.filter(made, rng, cached, 8.0, None).all()) for _ in range(4000))
    assert everyone / 4000 == pytest.approx(0.25, abs=0.03)
