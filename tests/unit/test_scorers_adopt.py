"""Built-in plug-ins hand over what they remember, and tell of it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp import Endpoints, Request
from epp.pool.prefix import DEFAULT_CAPACITY
from epp.testing import request
from scorers import session_affinity
from scorers.approx_prefix import ApproxPrefixCacheProducer
from scorers.no_hit_lru import NoHitLruScorer
from scorers.session_affinity import SessionAffinity
from scorers.tokens import TokenProducer
from tests.scorer_kit import build, decided, measured, table

LONG = "You are a helpful assistant. " * 100
NAMES = ("a", "b", "c")
MADE = table(*NAMES)


def hashed(producer: Any, text: str = LONG, made: Endpoints = MADE) -> tuple[Request, dict[str, Any]]:
    asked = request(text)
    return asked, measured(producer, asked, made, TokenProducer().measure(asked))


def send(producer: Any, to: str, text: str = LONG, made: Endpoints = MADE) -> None:
    asked, found = hashed(producer, text, made)
    producer.picked(asked, decided(asked, made, {"default": to}, signals=found))


def cached(producer: Any, text: str = LONG) -> list[float]:
    return list(hashed(producer, text)[1]["cached_blocks"])


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([LONG, LONG[::-1], LONG[:900]]))))
def test_an_heir_of_the_prefix_index_finds_what_the_one_before_would(sent: list[tuple[str, str]]) -> None:
    before, heir = ApproxPrefixCacheProducer(), ApproxPrefixCacheProducer(lru_capacity_per_server=7)
    for to, text in sent:
        send(before, to, text)
    expected = [cached(before, text) for text in (LONG, LONG[::-1], LONG[:900])]
    heir.adopt(before)
    assert [cached(heir, text) for text in (LONG, LONG[::-1], LONG[:900])] == expected


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        pytest.param({"blockSizeTokens": 32}, 12, id="shorter than the shortest"),
        pytest.param({"maxPrefixBlocksToMatch": 5000}, 12, id="another limit"),
        pytest.param({"blockSizeTokens": 128}, 0, id="longer blocks"),
        pytest.param({"autoTune": False}, 0, id="other blocks where engines tell"),
    ],
)
def test_the_prefix_index_is_adopted_where_blocks_stay_as_long(settings: dict[str, object], found: int) -> None:
    before, heir = ApproxPrefixCacheProducer(), build(ApproxPrefixCacheProducer, **settings)
    send(before, "b")
    heir.adopt(before)
    assert cached(heir) == [0, found, 0]


def test_a_request_decided_before_the_handover_is_remembered_by_both() -> None:
    before, heir = ApproxPrefixCacheProducer(), ApproxPrefixCacheProducer(max_prefix_blocks_to_match=100)
    asked, found = hashed(before)
    heir.adopt(before)
    before.picked(asked, decided(asked, MADE, {"default": "b"}, signals=found))
    assert cached(heir) == [0, 12, 0]


def test_an_adopted_index_gets_the_room_that_the_heir_is_told() -> None:
    before, heir = ApproxPrefixCacheProducer(), ApproxPrefixCacheProducer(lru_capacity_per_server=5)
    send(before, "b")
    assert before.capacity(MADE, 1, 64) == DEFAULT_CAPACITY
    heir.adopt(before)
    send(heir, "b", LONG[::-1])
    assert heir.statistics().entries <= 5


def test_the_prefix_index_tells_its_numbers() -> None:
    producer = ApproxPrefixCacheProducer()
    send(producer, "b")
    told = msgspec.to_builtins(producer.state())
    assert (told["endpoints"], told["totals"]["entries"], told["autoTune"]) == (3, 12, True)


def use(scorer: NoHitLruScorer, *names: str) -> None:
    for name in names:
        asked = request()
        scorer(asked, MADE, np.zeros(len(MADE)))
        scorer.picked(asked, decided(asked, MADE, {"default": name}))


def order(scorer: NoHitLruScorer) -> list[float]:
    return list(scorer(request(), MADE, np.zeros(len(MADE))))


@given(st.lists(st.sampled_from(NAMES)), st.lists(st.sampled_from(NAMES)))
def test_an_heir_of_the_lru_goes_on_as_the_one_before_would(first: list[str], later: list[str]) -> None:
    before, heir = NoHitLruScorer(), NoHitLruScorer(prefix_match_info_producer_name="other")
    use(before, *first)
    heir.adopt(before)
    for scorer in (before, heir):
        use(scorer, *later)
    assert order(heir) == order(before)


def test_of_more_uses_than_fit_an_heir_keeps_the_latest() -> None:
    before, heir, small = NoHitLruScorer(), NoHitLruScorer(lru_size=2), NoHitLruScorer(lru_size=2)
    use(before, "a", "c", "b")
    use(small, "a", "c", "b")
    heir.adopt(before)
    assert order(heir) == order(small) == [1.0, 0.0, 0.5]
    assert heir.state() == {"endpoints": 3, "used": 2, "size": 2}
    assert before.state()["used"] == 3


def by_id(**settings: object) -> Any:
    return build(SessionAffinity, strategy="session_id", **settings)


def ask(affinity: Any, session: str, to: str, now: float = 0.0) -> list[float]:
    """The scores, then the pick."""
    asked = request(headers={"x-session-id": session})
    scores = affinity.score(asked, MADE, now)
    affinity.picked(asked, decided(asked, MADE, {"default": to}, now=now))
    return list(scores)


@pytest.mark.parametrize("ttl_s", [300, 10, 900])
def test_sessions_are_adopted_and_end_by_the_heirs_time(ttl_s: float) -> None:
    before, heir = by_id(), by_id(sessionIdConfig={"evictionTtlSeconds": ttl_s})
    ask(before, "s1", "b", now=0.0)
    heir.adopt(before)
    assert ask(heir, "s1", "b", now=ttl_s - 1.0) == [0, 1, 0]
    assert ask(heir, "s1", "b", now=2.0 * ttl_s) == [0, 0, 0]


@pytest.mark.parametrize(
    "settings", [{"profileName": "prefill"}, {"strategy": "encoded_endpoint_header"}], ids=["profile", "strategy"]
)
def test_sessions_pinned_otherwise_are_not_adopted(settings: dict[str, object]) -> None:
    before, heir = by_id(), build(SessionAffinity, **({"strategy": "session_id"} | settings))
    ask(before, "s1", "b")
    heir.adopt(before)
    assert list(heir.score(request(headers={"x-session-id": "s1"}), MADE, 0.0)) == [0, 0, 0]


def test_session_affinity_tells_how_many_sessions_there_are_and_not_which() -> None:
    affinity = by_id()
    ask(affinity, "secret", "b")
    assert affinity.state() == {
        "strategy": "session_id",
        "sessions": 1,
        "most": session_affinity.MOST_SESSIONS,
        "ttlSeconds": 300.0,
    }
    assert build(SessionAffinity).state() == {"strategy": "encoded_endpoint_header", "header": "x-session-token"}


@pytest.mark.parametrize("target", [ApproxPrefixCacheProducer, NoHitLruScorer, SessionAffinity])
def test_nothing_is_adopted_from_a_stranger(target: Any) -> None:
    heir = target()
    before = msgspec.json.encode(heir.state())
    heir.adopt(object())
    assert msgspec.json.encode(heir.state()) == before
