"""The metrics port: /metrics for Prometheus, /debug/* for whoever may look inside."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from epp.listening import listen
from epp.obs import exposition
from epp.obs.admin_gate import Authenticator, Gate, from_loopback, guarded, refusal
from epp.obs.decisions import Decisions, view
from epp.obs.profiling import Profiling

FEW, MOST = 10, 1_000
"""Decisions shown at once: by default, and at most."""
STOP_S = 2.0
Shown = Callable[[], object]
"""Gives what a page shows: text, or something JSON can tell."""


class Page(NamedTuple):
    """One path, and the line about it in the index."""

    path: str
    shows: str
    answer: Callable[[web.Request], Awaitable[web.Response]]


class Admin:
    """The server on the metrics port.

    `config`, `plugins_state`, `endpoints`, `queue` and `kubernetes` give what their pages show; without one there is
    no such page. With an `authenticator` every page takes a token; without one `may_debug` decides who may see /debug.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        decisions: Decisions,
        config: Shown,
        *,
        plugins_state: Shown | None = None,
        endpoints: Shown | None = None,
        queue: Shown | None = None,
        kubernetes: Shown | None = None,
        pprof: bool = True,
        authenticator: Authenticator | None = None,
        may_debug: Callable[[web.Request], bool] = from_loopback,
    ) -> None:
        self._registry = registry
        self._decisions = decisions
        shown = [
            ("config", "the configuration in force, with every default", config),
            ("endpoints", "each endpoint: address, labels, load, in flight, cooling", endpoints),
            ("queue", "how full the pool is, and who waits", queue),
            ("plugins/state", "what each plug-in tells of itself", plugins_state),
            ("kubernetes", "what is watched, and who leads", kubernetes),
        ]
        self._pages = (
            Page("/metrics", "for Prometheus", self._metrics),
            Page("/healthz", "ok while the process lives", _healthz),
            Page("/debug/decisions", "the last decisions: ?limit=, ?request_id=, ?id=", self._show_decisions),
            *(Page(f"/debug/{name}", what, _page_of(tell)) for name, what, tell in shown if tell is not None),
            *(_profiles() if pprof else ()),
        )
        gate = Gate(authenticator, may_debug)
        self._runner = web.AppRunner(self._app(gate), access_log=None, shutdown_timeout=STOP_S)

    async def start(self, port: int, *, host: str = "", tls: ssl.SSLContext | None = None) -> int:
        """Listen on `port` (0 = any) of `host` ("" = every address); returns the port. Raises OSError naming it."""
        listener = listen(port, "--metrics-port", host)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=tls).start()
        bound: int = listener.getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening; requests under way get STOP_S."""
        await self._runner.cleanup()

    def _app(self, gate: Gate) -> web.Application:
        app = web.Application(middlewares=[guarded(gate)])
        for page in self._pages:
            app.router.add_get(page.path, page.answer)
        for path in ("/", "/debug", "/debug/"):
            app.router.add_get(path, self._index)
        app.router.add_route("*", "/{anything:.*}", self._nothing)
        return app

    async def _index(self, _: web.Request) -> web.Response:
        width = max(len(page.path) for page in self._pages)
        return web.Response(text="".join(f"{page.path:{width}}  {page.shows}\n" for page in self._pages))

    async def _nothing(self, request: web.Request) -> web.Response:
        return refusal(404, f"nothing at {request.path[:100]}; have: {', '.join(page.path for page in self._pages)}")

    async def _metrics(self, request: web.Request) -> web.Response:
        # A page may hold 100,000 lines: rendered beside the loop, which must go on picking.
        wanted = (request.headers.get("Accept", ""), request.headers.get("Accept-Encoding", ""))
        page, headers = await asyncio.to_thread(exposition.page, self._registry, *wanted)
        return web.Response(body=page, headers=headers)

    async def _show_decisions(self, request: web.Request) -> web.Response:
        name = request.query.get("id")
        if name is not None:
            return await self._show_decision(name)
        limit = request.query.get("limit", str(FEW))
        if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:5]) <= MOST:
            return refusal(400, f"limit={limit}: it must be a number from 1 to {MOST}")
        found = self._decisions.latest(int(limit), request.query.get("request_id", ""))
        return _json(await asyncio.to_thread(lambda: msgspec.json.encode([view(recorded) for recorded in found])))

    async def _show_decision(self, name: str) -> web.Response:
        found = self._decisions.find(name)
        if found is None:
            return refusal(
                404, f"no decision {name!r} among the last {len(self._decisions)}, which are all that is kept"
            )
        return _json(msgspec.json.encode(view(found)))


def _page_of(tell: Shown) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        shown = tell()
        if isinstance(shown, str):
            return web.Response(text=shown)
        return _json(await asyncio.to_thread(msgspec.json.encode, shown, enc_hook=str))

    return answer


def _profiles() -> tuple[Page, ...]:
    profiling = Profiling()
    return (
        Page("/debug/pprof/", "how to profile", profiling.index),
        Page("/debug/pprof/profile", "what the event loop spends its time on: ?seconds=", profiling.profile),
        Page("/debug/pprof/heap", "what holds memory", profiling.heap),
    )


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")
