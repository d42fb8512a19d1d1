"""Laws that every built-in scorer and filter obeys, whatever the numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp import Endpoints, Request
from epp.plugins import reads_of
from epp.testing import endpoints, request
from scorers.attributes import EndpointAttributeFilter, EndpointAttributeScorer
from scorers.conformance import header_based_testing_filter
from scorers.context_length import RANGE_LABEL, ContextLengthAware
from scorers.labels import (
    ROLE,
    ByLabel,
    LabelSelectorFilter,
    decode_filter,
    encode_filter,
    header_label_affinity_scorer,
    prefill_filter,
)
from scorers.load import (
    ActiveRequestScorer,
    UtilizationFilter,
    kv_cache_utilization_scorer,
    load_aware_scorer,
    queue_scorer,
    running_requests_size_scorer,
    token_load_scorer,
)
from scorers.lora import LoraAffinityScorer
from scorers.no_hit_lru import NoHitLruScorer
from scorers.prefix import PrefixCacheAffinityFilter, PrefixCacheScorer
from scorers.session_affinity import SessionAffinity
from scorers.tokens import Tokens
from tests.scorer_kit import build

LINEAR = {"type": "linear_higher_is_better"}
FIXED = {"type": "linear_lower_is_better", "normalization": {"fixedRange": {"min": 2, "max": 7}}}
HOT = {"type": "threshold", "threshold": {"operator": "LessThan", "value": 5}}
CONDITIONS = [{"metric": "waiting-queue", "maxValue": 5}, {"metric": "kv-cache-utilization", "maxValue": 0.5}]

SCORERS: dict[str, Callable[[], Any]] = {
    "queue": lambda: queue_scorer,
    "running": lambda: running_requests_size_scorer,
    "kv": lambda: kv_cache_utilization_scorer,
    "load-aware": lambda: load_aware_scorer,
    "active-request": lambda: build(ActiveRequestScorer, idleThreshold=2, maxBusyScore=0.7),
    "token-load": lambda: token_load_scorer,
    "lora": LoraAffinityScorer,
    "prefix": PrefixCacheScorer,
    "prefix-by-length": lambda: build(PrefixCacheScorer, matchLengthWeight=0.3),
    "context-length": lambda: ContextLengthAware().score,
    "session": lambda: SessionAffinity().score,
    "header-label": lambda: (
        lambda request, endpoints: header_label_affinity_scorer(
            request, endpoints, header_name="X-Zone", label_key="zone"
        )
    ),
    "attribute": lambda: build(EndpointAttributeScorer, attributeKey="heat", algorithm=LINEAR),
    "attribute-fixed": lambda: build(EndpointAttributeScorer, attributeKey="heat", algorithm=FIXED),
}
FILTERS: dict[str, Callable[[], Any]] = {
    "decode": lambda: decode_filter,
    "prefill": lambda: prefill_filter,
    "encode": lambda: encode_filter,
    "selector": lambda: build(LabelSelectorFilter, matchLabels={"zone": "a"}),
    "by-label": lambda: build(ByLabel, label="zone", validValues=["a"]),
    "context-length": lambda: build(ContextLengthAware, enableFiltering=True).filter,
    "utilization": lambda: build(UtilizationFilter, conditions=CONDITIONS),
    "attribute": lambda: build(EndpointAttributeFilter, attribute="heat", algorithm=HOT),
    "session": lambda: SessionAffinity().filter,
    "prefix-affinity": lambda: PrefixCacheAffinityFilter().filter,
    "test-header": lambda: header_based_testing_filter,
}
COUNT = st.floats(0, 1e6)
ROW = st.fixed_dictionaries(
    {
        "waiting": COUNT,
        "running": COUNT,
        "kv_usage": st.floats(0, 1),
        "inflight": st.integers(0, 1000).map(float),
        "inflight_tokens": COUNT,
        "max_loras": st.integers(0, 3).map(float),
        "uncached": COUNT,
        "cached": st.integers(0, 8).map(float),
        "heat": st.none() | st.floats(-1e6, 1e6),
        "lora": st.sampled_from([((), ()), (("model-a",), ()), (("b",), ("model-a",)), (("b", "c"), ())]),
        "labels": st.fixed_dictionaries(
            {},
            optional={
                "zone": st.sampled_from("abc"),
                ROLE: st.sampled_from(["decode", "prefill", "both", "encode"]),
                RANGE_LABEL: st.sampled_from(["0-10", "5-5", "100-5000", "bad"]),
            },
        ),
    }
)
COLUMNS = ("waiting", "running", "kv_usage", "inflight", "inflight_tokens", "max_loras")
Rows = list[dict[str, Any]]


def made_of(rows: Rows) -> Endpoints:
    return endpoints(
        labels=[row["labels"] for row in rows],
        loras=[row["lora"] for row in rows],
        attributes={"heat": [row["heat"] for row in rows]},
        **{name: [row[name] for row in rows] for name in COLUMNS},
    )


def ask(plugin: Any, asked: Request, rows: Rows, order: np.ndarray | None = None) -> np.ndarray:
    """What the plug-in says of these rows, seen in another order."""
    order = np.arange(len(rows)) if order is None else order
    values = {
        "request": asked,
        "endpoints": made_of(rows).take(order),
        "now": 5.0,
        "rng": np.random.default_rng(1),
        "tokens": Tokens(count=len(rows) * 7),
        "cached_blocks": np.array([row["cached"] for row in rows], dtype=np.float64)[order],
        "uncached_tokens": np.array([row["uncached"] for row in rows], dtype=np.float64)[order],
        "prompt_blocks": 8.0,
        "prefix_block_tokens": 64.0,
        "inflight_charge": None,
        "session_id": "",
    }
    return plugin(*[values[name] for name in reads_of(plugin)])


HEADERS = {"x-zone": "a", "x-session-token": "ZGVmYXVsdC9lMQ==", "test-epp-endpoint-selection": "10.0.0.2"}


@pytest.mark.parametrize("name", SCORERS)
@settings(max_examples=40)
@given(rows=st.lists(ROW, max_size=8), random=st.randoms(use_true_random=False))
def test_scores_are_in_range_and_follow_their_endpoints(name: str, rows: Rows, random: Any) -> None:
    order = np.array(random.sample(range(len(rows)), len(rows)), dtype=np.intp)
    scores = ask(SCORERS[name](), request(headers=HEADERS), rows)
    assert scores.dtype == np.float64
    assert scores.shape == (len(rows),)
    assert ((scores >= 0.0) & (scores <= 1.0)).all()
    assert np.array_equal(ask(SCORERS[name](), request(headers=HEADERS), rows, order), scores[order])


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=40)
@given(rows=st.lists(ROW, max_size=8), random=st.randoms(use_true_random=False))
def test_masks_follow_their_endpoints(name: str, rows: Rows, random: Any) -> None:
    order = np.array(random.sample(range(len(rows)), len(rows)), dtype=np.intp)
    mask = ask(FILTERS[name](), request(headers=HEADERS), rows)
    assert mask.dtype == np.bool_
    assert mask.shape == (len(rows),)
    assert np.array_equal(ask(FILTERS[name](), request(headers=HEADERS), rows, order), mask[order])


@settings(max_examples=60)
@given(cached=st.lists(st.integers(0, 2), max_size=6))
def test_no_hit_lru_scores_are_in_range(cached: list[int]) -> None:
    made = endpoints(waiting=[0.0] * len(cached))
    scores = NoHitLruScorer()(request(), made, np.array(cached, dtype=np.float64))
    assert scores.shape == (len(cached),)
    assert ((scores >= 0.0) & (scores <= 1.0)).all()
