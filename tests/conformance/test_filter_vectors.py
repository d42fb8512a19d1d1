"""The llm-d router's own test cases for filters, session affinity and pickers, as tables."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from epp.pickers import max_score_picker, weighted_random_picker
from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.conformance import header_based_testing_filter
from scorers.labels import ROLE, decode_filter, encode_filter, prefill_filter
from scorers.prefix import PrefixCacheAffinityFilter
from scorers.session_affinity import SessionAffinity
from tests.scorer_kit import build, called, decided, table

RNG = np.random.default_rng(0)
ROLES = ["decode", "prefill", "prefill-decode", "both", "encode-prefill-decode", "encode", "encode-prefill", None]


@pytest.mark.parametrize(
    ("role_filter", "kept"),
    [
        (decode_filter, {"decode", "prefill-decode", "both", "encode-prefill-decode", None}),
        (prefill_filter, {"prefill", "prefill-decode", "both", "encode-prefill-decode", "encode-prefill"}),
        (encode_filter, {"encode", "encode-prefill", "encode-prefill-decode"}),
    ],
    ids=["decode", "prefill", "encode"],
)
def test_role_filters(role_filter: Any, kept: set[str | None]) -> None:
    made = endpoints(labels=[{} if role is None else {ROLE: role} for role in ROLES])
    assert list(role_filter(made)) == [role in kept for role in ROLES]


@pytest.mark.parametrize(
    ("header", "hosts", "kept"),
    [
        (None, ["10.0.0.1:3000"], []),
        ("10.0.0.9", ["10.0.0.1:3000"], []),
        ("10.0.0.1", ["10.0.0.1:3002"], [0]),
        ("10.0.0.1:3002", ["10.0.0.1:3000", "10.0.0.1:3002", "10.0.0.2:3002"], [1]),
        ("10.0.0.1:3009", ["10.0.0.1:3000"], []),
        ("10.0.0.3:3004, 10.0.0.2, 10.0.0.3", ["10.0.0.1:3000", "10.0.0.2:3002", "10.0.0.3:3004"], [1, 2]),
        ("10.0.0.1:3000,10.0.0.1:3002", ["10.0.0.1:3000", "10.0.0.1:3002"], [0]),
        ("10.0.0.1", ["10.0.0.1:3000", "10.0.0.1:3002"], [1]),
        ("[fd00::1]:3002", ["fd00::1:3002", "fd00::2:3002"], [0]),
        ("fd00::2", ["fd00::1:3002", "fd00::2:3002"], [1]),
    ],
    ids=[
        "no-header",
        "unknown",
        "ip",
        "ip-port",
        "wrong-port",
        "several",
        "ip-twice",
        "ip-of-several",
        "ipv6-port",
        "ipv6",
    ],
)
def test_header_based_testing_filter(header: str | None, hosts: list[str], kept: list[int]) -> None:
    records = [
        called(f"e{row}", address=host.rpartition(":")[0], port=int(host.rpartition(":")[2]))
        for row, host in enumerate(hosts)
    ]
    asked = request(headers={} if header is None else {"test-epp-endpoint-selection": header})
    assert np.flatnonzero(header_based_testing_filter(asked, table(*records))).tolist() == kept


@pytest.mark.parametrize(
    ("settings", "percent", "ttft", "kept"),
    [
        ({}, [10, 20, 50], [1, 1, 1], [True, True, True]),
        ({"maxTTFTPenaltyMs": 5000}, [90, 85, 10], [100, 120, 50], [True, True, False]),
        ({"maxTTFTPenaltyMs": 100}, [90, 10], [500, 50], [True, True]),
        ({"affinityThreshold": 0}, [90, 10], [1, 1], [True, True]),
        ({"explorationProbability": 1}, [90, 10], [1, 1], [True, True]),
    ],
    ids=["nobody-sticky", "sticky", "too-busy", "off", "exploring"],
)
def test_prefix_cache_affinity_filter_by_prediction(
    settings: dict[str, Any], percent: list[float], ttft: list[float], kept: list[bool]
) -> None:
    chosen = build(PrefixCacheAffinityFilter, ttftSource="latencyPredictor", **settings)
    cached, predicted = np.array(percent, dtype=np.float64), np.array(ttft, dtype=np.float64)
    assert list(chosen.filter(RNG, cached, 100.0, predicted)) == kept


@pytest.mark.parametrize(
    ("penalty", "tokens", "kept"),
    [(100, [500, 50], [True, True]), (1000, [500, 50], [True, False]), (0, [5000, 50], [True, False])],
    ids=["too-busy", "sticky", "always-sticky"],
)
def test_prefix_cache_affinity_filter_by_throughput(penalty: float, tokens: list[float], kept: list[bool]) -> None:
    chosen = build(PrefixCacheAffinityFilter, peakPrefillThroughput=1000, maxTTFTPenaltyMs=penalty)
    assert list(chosen.filter(endpoints(inflight_tokens=tokens), RNG, np.array([90.0, 10.0]), 100.0, None)) == kept


@pytest.mark.parametrize(
    "settings",
    [
        {"affinityThreshold": 1.5},
        {"explorationProbability": -0.1},
        {"peakPrefillThroughput": -1},
        {"peakPrefillThroughput": 0},
        {"ttftSource": ""},
        {"ttftSource": "bogus"},
    ],
    ids=str,
)
def test_prefix_cache_affinity_filter_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises((PluginError, ValueError), match=next(iter(settings))):
        build(PrefixCacheAffinityFilter, **settings)


@pytest.mark.parametrize("other", [{"maxTTFTPenaltyMs": 0}, {"ttftSource": "latencyPredictor"}], ids=str)
def test_prefix_cache_affinity_filter_needs_no_throughput_it_does_not_use(other: dict[str, Any]) -> None:
    build(PrefixCacheAffinityFilter, peakPrefillThroughput=0, **other)


def token(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        ({}, {"x-session-token": token("/pod-b")}, [0, 1]),
        ({"encodedEndpointHeaderConfig": {"header": "x-mine"}}, {"x-session-token": token("/pod-b")}, [0, 0]),
        ({}, {"x-session-token": "!!garbage"}, [0, 0]),
        ({}, {}, [0, 0]),
    ],
    ids=["known", "other-header", "garbage", "none"],
)
def test_session_affinity_scorer(settings: dict[str, Any], headers: dict[str, str], expected: list[float]) -> None:
    made = table(called("pod-a", ""), called("pod-b", ""))
    assert list(build(SessionAffinity, **settings).score(request(headers=headers), made, 0.0)) == expected


@pytest.mark.parametrize(
    ("settings", "picks", "expected"),
    [
        ({}, {"default": "pod1"}, {"x-session-token": token("default/pod1")}),
        ({}, {}, None),
        ({"profileName": "prefill"}, {"default": "pod1"}, None),
        (
            {"profileName": "prefill"},
            {"default": "pod1", "prefill": "pod2"},
            {"x-session-token": token("default/pod2")},
        ),
    ],
    ids=["picked", "nobody-picked", "profile-absent", "profile"],
)
def test_session_affinity_response(settings: dict[str, Any], picks: dict[str, str], expected: object) -> None:
    asked = request()
    decision = decided(asked, table("pod1", "pod2"), picks)
    assert build(SessionAffinity, **settings).response_headers(asked, decision, {}, {}) == expected


@pytest.mark.parametrize(
    ("scores", "most", "expected"),
    [
        ([10, 25, 15], 1, [25]),
        ([50, 50, 30], 2, [50, 50]),
        ([20, 25, 30], 2, [30, 25]),
        ([20, 25, 30], 4, [30, 25, 20]),
        ([30, 25, 30], 3, [30, 30, 25]),
    ],
    ids=["best", "tie", "two", "more-than-there-are", "tie-first"],
)
def test_max_score_picker(scores: list[float], most: int, expected: list[float]) -> None:
    totals = np.array(scores, dtype=np.float64)
    assert list(totals[max_score_picker(totals, RNG, max_num_of_endpoints=most)]) == expected


@pytest.mark.parametrize(
    "scores", [[10, 90], [1, 1, 1], [30, 0], [100, 90, 50, 30, 20]], ids=["two", "equal", "zero", "five"]
)
def test_weighted_random_picker(scores: list[float]) -> None:
    totals = np.array(scores, dtype=np.float64)
    rng = np.random.default_rng(49)
    picks = [int(weighted_random_picker(totals, rng)[0]) for _ in range(10_000)]
    shares = np.bincount(picks, minlength=len(totals)) / 10_000
    assert shares == pytest.approx(totals / totals.sum(), abs=0.05)
    assert not shares[totals == 0].any()
