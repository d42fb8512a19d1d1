"""Who may read the metrics port, and by which methods: asked before any page is looked up."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from epp.kube.reviews import Verdict

OPEN = "/healthz"
"""Answers anybody: probes show no token, and it tells nothing but that the process lives."""
METHODS = "GET, HEAD"


class Authenticator(Protocol):
    """Knows who may read what; epp.kube.reviews.Reviewer is one."""

    async def check(self, path: str, authorization: str) -> Verdict:
        """Whether the bearer of this Authorization header ("" = none) may get `path`."""


def from_loopback(request: web.Request) -> bool:
    """Whether the request comes from this machine: all the proof there is while nobody has to say who they are."""
    peer = request.remote
    if peer is None:
        return False
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Gate:
    """With an authenticator every page but OPEN takes a token, and where a request comes from counts for nothing.

    A sidecar proxy passes strangers' requests on from loopback, so loopback is proof only while nobody asks for a
    better one: then it opens /debug, and all else is open to everybody.
    """

    def __init__(self, authenticator: Authenticator | None, may_debug: Callable[[web.Request], bool]) -> None:
        self._authenticator = authenticator
        self._may_debug = may_debug

    async def passes(self, request: web.Request) -> web.Response | None:
        """None, or the answer in place of the page."""
        verdict = Verdict(200) if request.path == OPEN else await self._verdict(request)
        if verdict.status != 200:
            return refusal(verdict.status, verdict.text)
        if request.method not in METHODS.split(", "):
            return refusal(405, f"{request.method} is not served here; use {METHODS}", {"Allow": METHODS})
        return None

    async def _verdict(self, request: web.Request) -> Verdict:
        if self._authenticator is not None:
            return await self._authenticator.check(request.path, request.headers.get("Authorization", ""))
        if not request.path.startswith("/debug") or self._may_debug(request):
            return Verdict(200)
        path = request.path[:100]
        return Verdict(403, f"{path} is shown only to this machine; forward the port and ask through localhost")


def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """`status: text`, a line for whoever asks with curl."""
    told = {"WWW-Authenticate": 'Bearer realm="metrics"'} if status == 401 else {}
    return web.Response(status=status, text=f"{status}: {text}\n", headers=told | (headers or {}))


def guarded(gate: Gate) -> Middleware:
    """The gate as aiohttp takes it: around every page, those that do not exist included."""

    @web.middleware
    async def ask(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = await gate.passes(request)
        return await handler(request) if refused is None else refused

    return ask
