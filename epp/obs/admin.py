"""The metrics port: /metrics for Prometheus, /debug/* for whoever is on this machine."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from epp.obs.decisions import Decisions, view
from epp.obs.profiling import Profiling

FEW, MOST = 10, 1_000
"""Decisions shown at once: by default, and at most."""
Page = Callable[[web.Request], Awaitable[web.Response]]
PAGES = "/metrics, /healthz, /debug/decisions, /debug/config, /debug/pprof/"
STOP_S = 2.0


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


class Admin:
    """The server on the metrics port.

    `config` gives what /debug/config shows, text or something JSON can tell; `may_debug` decides who may see /debug.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        decisions: Decisions,
        config: Callable[[], object],
        *,
        pprof: bool = True,
        may_debug: Callable[[web.Request], bool] = from_loopback,
    ) -> None:
        self._registry = registry
        self._decisions = decisions
        self._config = config
        self._may_debug = may_debug
        self._runner = web.AppRunner(self._pages(pprof), access_log=None, shutdown_timeout=STOP_S)

    async def start(self, port: int, *, host: str = "", tls: ssl.SSLContext | None = None) -> int:
        """Listen on `port` (0 = any) of `host` ("" = every address); returns the port. Raises OSError."""
        listener = _listen(host, port)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=tls).start()
        bound: int = listener.getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening; requests under way get STOP_S."""
        await self._runner.cleanup()

    def _pages(self, pprof: bool) -> web.Application:
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", _healthz)
        debug = {"decisions": self._show_decisions, "config": self._show_config}
        if pprof:
            profiling = Profiling()
            debug |= {"pprof/": profiling.index, "pprof/profile": profiling.profile, "pprof/heap": profiling.heap}
        for name, page in debug.items():
            app.router.add_get(f"/debug/{name}", self._guarded(page))
        app.router.add_get("/{anything:.*}", _nothing)
        return app

    def _guarded(self, page: Page) -> Page:
        async def guarded(request: web.Request) -> web.Response:
            if self._may_debug(request):
                return await page(request)
            text = f"403: {request.path} is shown only to this machine; forward the port and ask through localhost\n"
            return web.Response(status=403, text=text)

        return guarded

    async def _metrics(self, request: web.Request) -> web.Response:
        # A page may hold 100,000 lines: rendered beside the loop, which must go on picking.
        page, content_type, zipped = await asyncio.to_thread(
            _render,
            self._registry,
            request.headers.get("Accept", ""),
            "gzip" in request.headers.get("Accept-Encoding", ""),
        )
        headers = {"Content-Type": content_type} | ({"Content-Encoding": "gzip"} if zipped else {})
        return web.Response(body=page, headers=headers)

    async def _show_decisions(self, request: web.Request) -> web.Response:
        name = request.query.get("id")
        if name is not None:
            return await self._show_decision(name)
        limit = request.query.get("limit", str(FEW))
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= MOST:
            return web.Response(status=400, text=f"400: limit={limit}: it must be a number from 1 to {MOST}\n")
        found = self._decisions.latest(int(limit), request.query.get("request_id", ""))
        return _json(await asyncio.to_thread(lambda: msgspec.json.encode([view(recorded) for recorded in found])))

    async def _show_decision(self, name: str) -> web.Response:
        found = self._decisions.find(name)
        if found is None:
            text = f"404: no decision {name!r} among the last {len(self._decisions)}, which are all that is kept\n"
            return web.Response(status=404, text=text)
        return _json(msgspec.json.encode(view(found)))

    async def _show_config(self, request: web.Request) -> web.Response:
        shown = self._config()
        if isinstance(shown, str):
            return web.Response(text=shown)
        return _json(msgspec.json.encode(shown, enc_hook=str))


def _render(registry: CollectorRegistry, accept: str, zipped: bool) -> tuple[bytes, str, bool]:
    """The page as text or OpenMetrics, its content type, and whether it is compressed."""
    encode, content_type = choose_encoder(accept)
    page = encode(registry)
    return (gzip.compress(page, 1) if zipped else page), content_type, zipped


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _nothing(request: web.Request) -> web.Response:
    return web.Response(status=404, text=f"404: nothing at {request.path}; have: {PAGES}\n")


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; without a host one for IPv4 and IPv6 alike, or for IPv4 where there is no IPv6."""
    if not host and socket.has_dualstack_ipv6():
        # IPv6 may be compiled in and still switched off; a port that is taken fails again below.
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)
