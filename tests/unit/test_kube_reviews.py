"""Who may read the metrics port: against a small fake for what is asked how often, and against the API server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from epp.kube import ApiError, reviews
from epp.kube.client import Api
from epp.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS, Reviewer, Verdict, bearer
from tests.apiserver import ApiServer
from tests.unit.kit import Clock
from tests.unit.virtual_time import run_virtually

USER = {"username": "prom", "uid": "u1", "groups": ["g1", "g2"], "extra": {"k": ["v1", "v2"]}}
KNOWN, STRANGER = "Bearer good", "Bearer bad"


@dataclass
class Reviews:
    """An API server that knows the token `good`, who may get /metrics."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)  # JSON
    error: ApiError | None = None
    answer_s: float = 0.0
    answers: dict[str, bytes] = field(default_factory=dict)
    under_way: int = 0
    most_under_way: int = 0

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> bytes:
        sent = msgspec.json.decode(body or b"")
        self.asked.append((path, sent))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(self.answer_s)
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        return self.answers.get(path) or msgspec.json.encode(sent | {"status": self._status(path, sent["spec"])})

    def _status(self, path: str, spec: dict[str, Any]) -> dict[str, Any]:
        if path == TOKEN_REVIEWS:
            return {"authenticated": True, "user": USER} if spec["token"] == "good" else {"user": {}, "error": "no"}
        return {"allowed": spec["nonResourceAttributes"]["path"] == "/metrics"}


def test_both_reviews_are_asked_for_with_all_that_is_known_of_the_user() -> None:
    api = Reviews()
    assert asyncio.run(Reviewer(api).check("/metrics", KNOWN)) == Verdict(200)
    assert api.asked == [
        (
            TOKEN_REVIEWS,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "good"}},
        ),
        (
            ACCESS_REVIEWS,
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {
                    "user": "prom",
                    "uid": "u1",
                    "groups": ["g1", "g2"],
                    "extra": {"k": ["v1", "v2"]},
                    "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
                },
            },
        ),
    ]


@pytest.mark.parametrize(
    ("path", "authorization", "status", "words"),
    [
        ("/metrics", "", 401, "show a token: Authorization: Bearer …"),
        ("/metrics", "Basic Z29vZA==", 401, "show a token"),
        ("/metrics", "Bearer", 401, "show a token"),
        ("/metrics", STRANGER, 401, "this token is not valid (any more)"),
        ("/debug/config", KNOWN, 403, "prom may not get /debug/config: bind a ClusterRole with nonResourceURLs"),
    ],
)
def test_who_is_not_let_in_is_told_why(path: str, authorization: str, status: int, words: str) -> None:
    verdict = asyncio.run(Reviewer(Reviews()).check(path, authorization))
    assert verdict.status == status
    assert words in verdict.text


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc.d-e_f", "abc.d-e_f"),
        ("bearer  abc", "abc"),
        (" BEARER abc ", "abc"),
        ("Bearer a b", ""),
        ("Bearer \udcff", ""),
        ("Bearer ä", ""),
        ("Bearer a\x00b", ""),
        ("abc", ""),
        ("Token abc", ""),
    ],
)
def test_a_token_is_taken_from_a_bearer_header_only(header: str, token: str) -> None:
    assert bearer(header) == token


@pytest.mark.parametrize(
    ("path", "authorization", "kept_s"),
    [("/metrics", KNOWN, 60), ("/metrics", STRANGER, 10), ("/debug/", KNOWN, 10)],
    ids=["let in", "unknown", "not allowed"],
)
def test_a_verdict_is_kept_for_its_time(path: str, authorization: str, kept_s: float) -> None:
    async def asked_at(*seconds: float) -> list[int]:
        api, clock = Reviews(), Clock()
        reviewer, began, counted = Reviewer(api, clock=clock), clock.now, []
        for second in seconds:
            clock.now = began + second
            await reviewer.check(path, authorization)
            counted.append(sum(where == TOKEN_REVIEWS for where, _ in api.asked))
        return counted

    assert asyncio.run(asked_at(0, 1, kept_s - 0.1, kept_s)) == [1, 1, 1, 2]


def test_a_token_let_in_at_one_page_is_asked_about_for_another() -> None:
    reviewer = Reviewer(Reviews())

    async def both() -> list[int]:
        return [(await reviewer.check(path, KNOWN)).status for path in ("/metrics", "/debug/config")]

    assert asyncio.run(both()) == [200, 403]


def test_those_who_ask_at_once_with_one_token_share_a_review() -> None:
    api = Reviews(answer_s=0.1)

    async def many() -> list[int]:
        reviewer = Reviewer(api)
        return [one.status for one in await asyncio.gather(*[reviewer.check("/metrics", KNOWN) for _ in range(20)])]

    assert (run_virtually(many()), len(api.asked)) == ([200] * 20, 2)


def test_whoever_hangs_up_does_not_end_the_review_for_the_others() -> None:
    async def first_leaves() -> Verdict:
        reviewer = Reviewer(Reviews(answer_s=0.1))
        first = asyncio.create_task(reviewer.check("/metrics", KNOWN))
        second = asyncio.create_task(reviewer.check("/metrics", KNOWN))
        await asyncio.sleep(0.05)
        first.cancel()
        return await second

    assert run_virtually(first_leaves()) == Verdict(200)


def test_a_flood_of_tokens_takes_turns_and_drives_out_nobody_who_was_let_in() -> None:
    api = Reviews(answer_s=0.001)

    async def flood() -> Verdict:
        reviewer = Reviewer(api)
        await reviewer.check("/metrics", KNOWN)
        await asyncio.gather(*[reviewer.check("/metrics", f"Bearer {number}") for number in range(3_000)])
        api.error = ApiError(0, "away")
        return await reviewer.check("/metrics", KNOWN)

    assert run_virtually(flood()) == Verdict(200)
    assert api.most_under_way == reviews.AT_ONCE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ApiError(0, "connection refused"), "the API server can't be asked who may read this: connection refused"),
        (ApiError(500, "etcd is away"), "etcd is away"),
        (ApiError(403, "tokenreviews is forbidden", "Forbidden"), "bind the ClusterRole system:auth-delegator to"),
    ],
    ids=["away", "failing", "forbidden"],
)
def test_nobody_is_let_in_while_nobody_can_be_asked(
    error: ApiError, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def twice() -> list[Verdict]:
        clock = Clock()
        reviewer = Reviewer(Reviews(error=error), clock=clock)
        first = await reviewer.check("/metrics", KNOWN)
        clock.now += 5
        return [first, await reviewer.check("/metrics", KNOWN)]

    verdicts = asyncio.run(twice())
    assert [verdict.status for verdict in verdicts] == [503, 503]
    assert words in verdicts[0].text
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) == 1


@pytest.mark.parametrize("answer", [b" ", b"<html>", b"{}", b'{"status": "yes"}', b"\xff"], ids=str)
@pytest.mark.parametrize("path", [TOKEN_REVIEWS, ACCESS_REVIEWS], ids=["token", "access"])
def test_an_answer_that_is_no_review_lets_nobody_in(path: str, answer: bytes) -> None:
    api = Reviews(answers={path: answer})
    assert asyncio.run(Reviewer(api).check("/metrics", KNOWN)).status == 503


def test_an_answer_that_does_not_come_is_not_waited_for_longer_than_a_scrape_waits() -> None:
    async def timed() -> tuple[int, float]:
        verdict = await Reviewer(Reviews(answer_s=100.0)).check("/metrics", KNOWN)
        return verdict.status, asyncio.get_running_loop().time()

    assert run_virtually(timed()) == (503, pytest.approx(8.0))


def test_the_token_is_nowhere_in_what_is_kept_or_told(caplog: pytest.LogCaptureFixture) -> None:
    async def asked() -> tuple[Reviewer, Verdict]:
        reviewer = Reviewer(Reviews(error=ApiError(0, "away")))
        return reviewer, await reviewer.check("/metrics", "Bearer secret-token")

    reviewer, verdict = asyncio.run(asked())
    kept = repr((vars(reviewer._let_in), vars(reviewer._refused), verdict))
    assert "secret-token" not in kept + caplog.text


PROMETHEUS = "system:serviceaccount:monitoring:prometheus"
PICKER = "system:serviceaccount:default:epp"
DELEGATOR = [
    {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
    {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
]
SCRAPER = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]


@asynccontextmanager
async def cluster(folder: Path, rules: list[dict[str, Any]]) -> AsyncIterator[tuple[ApiServer, Reviewer]]:
    table = {"picker": (PICKER, rules), "scraper": (PROMETHEUS, SCRAPER), "other": ("somebody", [])}
    server = ApiServer(rbac=table)
    async with server:
        api = await Api.connect({"KUBECONFIG": str(server.kubeconfig(folder / "config", "picker"))})
        try:
            yield server, Reviewer(api)
        finally:
            await api.close()


def statuses(folder: Path, rules: list[dict[str, Any]], *asked: tuple[str, str]) -> list[int]:
    async def run() -> list[int]:
        async with cluster(folder, rules) as (_, reviewer):
            return [(await reviewer.check(path, f"Bearer {token}")).status for path, token in asked]

    return asyncio.run(run())


def test_the_api_server_decides_by_its_roles(tmp_path: Path) -> None:
    asked = (("/metrics", "scraper"), ("/debug/config", "scraper"), ("/metrics", "other"), ("/metrics", "nobody's"))
    assert statuses(tmp_path, DELEGATOR, *asked) == [200, 403, 403, 401]


def test_a_picker_that_may_not_ask_lets_nobody_in(tmp_path: Path) -> None:
    assert statuses(tmp_path, [], ("/metrics", "scraper")) == [503]


def test_an_api_server_that_is_gone_lets_nobody_new_in(tmp_path: Path) -> None:
    async def run() -> list[int]:
        async with cluster(tmp_path, DELEGATOR) as (server, reviewer):
            known = await reviewer.check("/metrics", "Bearer scraper")
            await server.stop()
            kept = await reviewer.check("/metrics", "Bearer scraper")
            return [known.status, kept.status, (await reviewer.check("/metrics", "Bearer other")).status]

    assert asyncio.run(run()) == [200, 200, 503]
