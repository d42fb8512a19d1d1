from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from epp import Endpoints, Request
from epp.settings import PluginError
from epp.testing import request
from scorers import session_affinity
from scorers.session import SessionIdProducer
from scorers.session_affinity import SessionAffinity
from tests.scorer_kit import build, decided, table


def by_id(**config: object) -> Any:
    return build(SessionAffinity, strategy="session_id", sessionIdConfig=config)


def asked_by(session: str) -> Request:
    return request(headers={"x-session-id": session})


def send(affinity: Any, asked: Request, made: Endpoints, to: str, now: float = 0.0) -> list[float]:
    """The scores, then the pick."""
    scores = affinity.score(asked, made, now)
    affinity.picked(asked, decided(asked, made, {"default": to}, now=now))
    return list(scores)


def test_a_session_returns_to_its_first_endpoint() -> None:
    affinity, made = by_id(), table("a", "b")
    assert send(affinity, asked_by("s1"), made, "b") == [0, 0]
    assert list(affinity.score(asked_by("s1"), made, 1.0)) == [0, 1]
    assert list(affinity.score(asked_by("s2"), made, 1.0)) == [0, 0]


def test_a_session_is_found_when_rows_change_places() -> None:
    affinity = by_id()
    send(affinity, asked_by("s1"), table("a", "b"), "b")
    assert list(affinity.score(asked_by("s1"), table("b", "c", "a"), 1.0)) == [1, 0, 0]


def test_a_session_outvoted_keeps_its_endpoint() -> None:
    affinity, made = by_id(), table("a", "b")
    send(affinity, asked_by("s1"), made, "b")
    send(affinity, asked_by("s1"), made, "a")
    assert list(affinity.score(asked_by("s1"), made, 1.0)) == [0, 1]


def test_a_session_moves_when_its_endpoint_is_gone() -> None:
    affinity = by_id()
    send(affinity, asked_by("s1"), table("a", "b"), "b")
    send(affinity, asked_by("s1"), table("a", "c"), "c")
    assert list(affinity.score(asked_by("s1"), table("a", "b", "c"), 1.0)) == [0, 0, 1]


def test_a_session_unused_for_its_time_to_live_is_forgotten() -> None:
    affinity, made = by_id(evictionTtlSeconds=10), table("a", "b")
    send(affinity, asked_by("s1"), made, "b", now=0.0)
    assert send(affinity, asked_by("s1"), made, "b", now=9.0) == [0, 1]
    assert send(affinity, asked_by("s1"), made, "b", now=18.0) == [0, 1]
    assert list(affinity.score(asked_by("s1"), made, 28.0)) == [0, 0]


def test_sessions_end_each_in_its_own_time() -> None:
    affinity, made = by_id(evictionTtlSeconds=10), table("a", "b")
    for session, now in (("s1", 0.0), ("s2", 1.0), ("s1", 9.0)):
        send(affinity, asked_by(session), made, "b", now)
    assert list(affinity.score(asked_by("s2"), made, 12.0)) == [0, 0]
    assert list(affinity.score(asked_by("s1"), made, 12.0)) == [0, 1]


def test_of_too_many_sessions_those_used_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_affinity, "MOST_SESSIONS", 2)
    affinity, made = by_id(), table("a", "b")
    for session in ("s1", "s2", "s3"):
        send(affinity, asked_by(session), made, "b")
    found = [affinity.score(asked_by(session), made, 1.0).any() for session in ("s1", "s2", "s3")]
    assert found == [False, True, True]


def test_an_endpoint_missing_from_one_profile_of_a_request_is_missing() -> None:
    affinity, made = by_id(), table("a", "b")
    send(affinity, asked_by("s1"), made, "b")
    asked = asked_by("s1")
    affinity.score(asked, table("a", "c"), 0.0)
    send(affinity, asked, made, "a")
    assert list(affinity.score(asked_by("s1"), made, 1.0)) == [1, 0]


def test_without_a_session_nothing_is_remembered() -> None:
    affinity, made = by_id(), table("a", "b")
    send(affinity, request(), made, "b")
    assert list(affinity.score(request(), made, 1.0)) == [0, 0]


def test_a_pick_of_another_request_is_not_this_sessions() -> None:
    affinity, made = by_id(), table("a", "b")
    affinity.score(asked_by("s1"), made, 0.0)
    other = request()
    affinity.picked(other, decided(other, made, {"default": "b"}))
    assert list(affinity.score(asked_by("s1"), made, 1.0)) == [0, 0]


def test_a_profile_has_its_own_endpoint() -> None:
    affinity = build(SessionAffinity, strategy="session_id", profileName="prefill")
    made, asked = table("a", "b"), asked_by("s1")
    affinity.score(asked, made, 0.0)
    affinity.picked(asked, decided(asked, made, {"decode": "a", "prefill": "b"}))
    assert list(affinity.score(asked_by("s1"), made, 1.0)) == [0, 1]


@pytest.mark.parametrize(
    ("source", "asked", "signal"),
    [
        ({"header": "X-User"}, request(headers={"x-user": "s1"}), ""),
        ({"attribute": "agent-identity"}, request(attributes={"agent-identity": "s1"}), ""),
        ({"attribute": "SessionIDDataKey", "producer": "session-id-producer"}, request(), "s1"),
    ],
    ids=["header", "attribute", "session-id-producer"],
)
def test_a_session_id_comes_from_where_it_is_configured(source: dict[str, str], asked: Request, signal: str) -> None:
    affinity, made = by_id(sources=[source]), table("a", "b")
    affinity.score(asked, made, 0.0, signal)
    affinity.picked(asked, decided(asked, made, {"default": "b"}))
    assert list(affinity.score(asked, made, 1.0, signal)) == [0, 1]


def test_the_filter_keeps_the_sessions_endpoint_or_all() -> None:
    affinity, made = by_id(), table("a", "b")
    assert list(affinity.filter(asked_by("s1"), made, 0.0)) == [True, True]
    send(affinity, asked_by("s1"), made, "b")
    assert list(affinity.filter(asked_by("s1"), made, 1.0)) == [False, True]
    assert list(affinity.filter(asked_by("s1"), table("a", "c"), 1.0)) == [True, True]


def test_remembered_sessions_write_no_response_header() -> None:
    asked, made = asked_by("s1"), table("a")
    assert by_id().response_headers(asked, decided(asked, made, {"default": "a"}), {}, {}) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sources": [{"header": "a", "attribute": "b"}]}, "exactly one"),
        ({"sources": [{}]}, "exactly one"),
        ({"evictionTtlSeconds": 0}, "evictionTtlSeconds"),
        ({"evictionSweepSeconds": -1}, "evictionSweepSeconds"),
    ],
    ids=["both", "neither", "no-time-to-live", "negative-sweep"],
)
def test_session_settings_that_make_no_sense_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        by_id(**config)


@pytest.mark.parametrize(
    ("settings", "headers", "found"),
    [
        ({"headerName": "X-Session"}, {"x-session": " s1 "}, "s1"),
        ({"headerName": "X-Session"}, {}, ""),
        ({"cookieName": "sid"}, {"cookie": "a=b; sid=s1; c=d"}, "s1"),
        ({"cookieName": "sid"}, {"cookie": 'sid="s1"'}, "s1"),
        ({"cookieName": "sid"}, {"cookie": "asid=x"}, ""),
    ],
    ids=["header", "no-header", "cookie", "quoted", "other-cookie"],
)
def test_a_session_id_is_read_from_a_header_or_a_cookie(
    settings: dict[str, str], headers: dict[str, str], found: str
) -> None:
    assert build(SessionIdProducer, **settings)(request(headers=headers)) == found


@pytest.mark.parametrize("settings", [{}, {"headerName": "a", "cookieName": "b"}], ids=["neither", "both"])
def test_a_session_id_has_exactly_one_place(settings: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        build(SessionIdProducer, **settings)


def test_scores_are_floats() -> None:
    assert by_id().score(asked_by("s1"), table("a"), 0.0).dtype == np.float64
