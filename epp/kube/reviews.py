"""Who may read the metrics port: Kubernetes is asked who a token belongs to, then what they may.

TokenReview, then SubjectAccessReview for `get` on the path, as controller-runtime's filter does for Go's pickers.
Without an answer nobody is let in.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec

from epp.kube import UNREADABLE, ApiError

TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
KEPT_S = {200: 60.0, 401: 10.0, 403: 10.0, 503: 1.0}
"""How long a verdict holds, by its status: a token that was revoked is let in for so long."""
MOST_KEPT = 1_000
"""Verdicts kept of those let in, and as many of the others, so that a flood of wrong tokens drives out no right one."""
AT_ONCE = 8
"""Reviews under way; the API server is not ours to flood."""
REQUEST_S = 4.0
PATIENCE_S = 8.0
"""For both reviews and the wait for a turn: Prometheus gives a scrape 10 s."""
TOLD_AGAIN_S = 60.0

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """200 = let in; else the status to answer with: 401, 403, or 503 if nobody could be asked."""

    status: int
    text: str = ""
    """For whoever asked: what is missing, and the remedy."""


class Asks(Protocol):
    """What is needed of epp.kube.client.Api."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> bytes: ...


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom a token belongs to; `username` is what an access review calls `user`."""

    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] | None = None
    extra: dict[str, tuple[str, ...]] | None = None


class _TokenStatus(msgspec.Struct):
    authenticated: bool = False
    user: User | None = None
    error: str = ""


class _AccessStatus(msgspec.Struct):
    allowed: bool = False


class _TokenReview(msgspec.Struct):
    status: _TokenStatus


class _AccessReview(msgspec.Struct):
    status: _AccessStatus


class Reviewer:
    """Asks the API server, seldom: verdicts are kept for a while, under a hash and never the token itself."""

    def __init__(self, api: Asks, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._let_in = _Kept()
        self._refused = _Kept()
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._told_at = -math.inf

    async def check(self, path: str, authorization: str) -> Verdict:
        """Whether the bearer of this Authorization header ("" = none) may get `path`."""
        token = bearer(authorization)
        if not token:
            return Verdict(401, "show a token: Authorization: Bearer …")
        key = hashlib.sha256(f"{token}\n{path}".encode()).digest()
        # Others with the same question wait for the first and find its answer.
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE_S), lock:
                return self._known(key) or await self._asked(key, token, path)
        except TimeoutError:
            return self._unknown(ApiError(0, "no answer in time"))

    def _known(self, key: bytes) -> Verdict | None:
        now = self._clock()
        return self._let_in.get(key, now) or self._refused.get(key, now)

    async def _asked(self, key: bytes, token: str, path: str) -> Verdict:
        async with self._turns:
            try:
                verdict = await self._review(token, path)
            except ApiError as error:
                verdict = self._unknown(error)
        kept = self._let_in if verdict.status == 200 else self._refused
        kept.put(key, verdict, self._clock())
        return verdict

    async def _review(self, token: str, path: str) -> Verdict:
        review = _object("authentication.k8s.io/v1", "TokenReview", {"token": token})
        found = (await self._posted(TOKEN_REVIEWS, review, _TokenReview)).status
        if not found.authenticated:
            return Verdict(401, "this token is not valid (any more)")
        wanted = {"nonResourceAttributes": {"path": path, "verb": "get"}}
        user = found.user or User()
        spec = wanted | {"user": user.username, "uid": user.uid, "groups": user.groups, "extra": user.extra}
        review = _object("authorization.k8s.io/v1", "SubjectAccessReview", {k: v for k, v in spec.items() if v})
        if (await self._posted(ACCESS_REVIEWS, review, _AccessReview)).status.allowed:
            return Verdict(200)
        shown = path[:100]
        return Verdict(
            403, f"{user.username} may not get {shown}: bind a ClusterRole with nonResourceURLs [{shown}], verbs [get]"
        )

    async def _posted(self, path: str, review: bytes, kind: type[T]) -> T:
        answer = await self._api.request("POST", path, body=review, timeout_s=REQUEST_S)
        try:
            return msgspec.json.decode(answer, type=kind)
        except UNREADABLE as error:
            raise ApiError(0, f"{path}: what came is no review: {error}") from None

    def _unknown(self, error: ApiError) -> Verdict:
        text = f"the API server can't be asked who may read this: {error.message}"
        if error.status == 403:
            text += "; bind the ClusterRole system:auth-delegator to the picker's service account"
        now = self._clock()
        if now - self._told_at >= TOLD_AGAIN_S:
            self._told_at = now
            log.warning("the metrics port answers 503: %s", text)
        return Verdict(503, text)


class _Kept:
    """Verdicts by key, the oldest given up for the newest."""

    def __init__(self) -> None:
        self._verdicts: dict[bytes, tuple[float, Verdict]] = {}

    def get(self, key: bytes, now: float) -> Verdict | None:
        until, verdict = self._verdicts.get(key, (-math.inf, None))
        return verdict if now < until else None

    def put(self, key: bytes, verdict: Verdict, now: float) -> None:
        self._verdicts.pop(key, None)
        if len(self._verdicts) >= MOST_KEPT:
            del self._verdicts[next(iter(self._verdicts))]
        self._verdicts[key] = (now + KEPT_S[verdict.status], verdict)


def bearer(authorization: str) -> str:
    """The token of a header `Bearer …`; "" if it shows none that could be one."""
    scheme, _, token = authorization.strip().partition(" ")
    token = token.strip()
    plain = token.isascii() and token.isprintable() and " " not in token
    return token if scheme.lower() == "bearer" and plain else ""


def _object(api_version: str, kind: str, spec: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"apiVersion": api_version, "kind": kind, "spec": spec})
