"""Listeners on our own HTTP/2: ext_proc with health, and the plaintext health port."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import cast

from epp.extproc import http2_calls as calls
from epp.extproc import http2_upkeep as upkeep
from epp.extproc.dialogue import Dialogue
from epp.extproc.health import HealthService
from epp.extproc.http2_connection import Connection
from epp.extproc.http2_limits import Budget, Limits
from epp.extproc.http2_protocol import Live, Peer
from epp.extproc.readiness import Readiness
from epp.extproc.service import StreamWatch
from epp.extproc.tls import Certificates, Terms, server_context
from epp.listening import listen

HEALTH_BYTES = 1 << 16
"""Largest message of a health check."""
GOAWAY_S = 1.0
"""A client that has not answered the first GOAWAY by then gets the second."""


class Http2Server:
    """A Server on our own HTTP/2.

    `elected`: replicas elect one of them, which changes what probes are told. `max_waiting_bytes`: of messages that
    have not come whole, or wait for their turn, on all connections together.
    """

    def __init__(
        self,
        open_dialogue: Callable[[], Dialogue],
        watch: StreamWatch,
        readiness: Readiness,
        *,
        elected: bool = False,
        max_recv_bytes: int,
        max_send_bytes: int,
        max_waiting_bytes: int,
        terms: Terms | None = None,
    ) -> None:
        health = calls.health(HealthService(readiness.ready, reachable=readiness.reachable, elected=elected))
        process = calls.process(open_dialogue, watch, time.monotonic)
        waiting = Budget(max(max_waiting_bytes, max_recv_bytes))
        self._serving = Listener({**process, **health}, Limits(max_recv_bytes, max_send_bytes), waiting)
        self._health = health_listener(health)
        self._terms = terms or Terms(alpn=("h2",))

    async def start(self, port: int, health_port: int, certificates: Certificates | None) -> tuple[int, int]:
        tls = None if certificates is None else server_context(certificates, self._terms)
        bound = await self._serving.start(port, "--grpc-port", tls)
        return bound, await self._health.start(health_port, "--grpc-health-port", None)

    async def stop(self, grace_s: float) -> None:
        await self._serving.stop(grace_s)
        await self._health.stop(0)


class Clients:
    """Clients that are connected, whoever accepted them, and the calls they are offered."""

    def __init__(self, offered: calls.Calls, limits: Limits, waiting: Budget) -> None:
        self._offered, self._limits, self._waiting = offered, limits, waiting
        self.live = Live()
        self._ticking: asyncio.TimerHandle | None = None

    def peer(self) -> asyncio.Protocol:
        """The protocol of one more."""
        return cast("asyncio.Protocol", Peer(self._offered, self._limits, self._waiting, self.live))

    def tick(self) -> None:
        """See to those that stall, now and from time to time."""
        for peer in tuple(self.live.peers):
            peer.tick()
        self._ticking = asyncio.get_running_loop().call_later(upkeep.TICK_S, self.tick)

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give open ones `grace_s`, then cut them."""
        if self._ticking is not None:
            self._ticking.cancel()
        until = time.monotonic() + grace_s
        self._each(upkeep.drain)
        await self.live.empty(min(grace_s, GOAWAY_S))
        self._each(upkeep.drained)
        await self.live.empty(max(until - time.monotonic(), 0))
        self._each(upkeep.cut)
        if not await self.live.empty(GOAWAY_S):
            for peer in tuple(self.live.peers):
                peer.abort()
            await self.live.empty(GOAWAY_S)

    def _each(self, act: Callable[[Connection], None]) -> None:
        for peer in tuple(self.live.peers):
            act(peer.connection)
            peer.flush()


class Listener:
    """One port and the clients connected to it."""

    def __init__(self, offered: calls.Calls, limits: Limits, waiting: Budget) -> None:
        self._given = offered, limits, waiting
        self._clients: Clients | None = None
        self._server: asyncio.Server | None = None

    async def start(self, port: int, flag: str, tls: ssl.SSLContext | None) -> int:
        loop = asyncio.get_running_loop()
        clients = self._clients = Clients(*self._given)
        listening = listen(port, flag)
        # A client that does not finish its handshake is cut off as one that does not say the preface.
        self._server = await loop.create_server(
            clients.peer,
            sock=listening,
            ssl=tls,
            ssl_handshake_timeout=upkeep.GREETING_S if tls else None,
            ssl_shutdown_timeout=GOAWAY_S if tls else None,
        )
        clients.tick()
        bound: int = listening.getsockname()[1]
        return bound

    async def stop(self, grace_s: float) -> None:
        if self._server is not None and self._clients is not None:
            self._server.close()
            await self._clients.stop(grace_s)


def health_listener(health: calls.Calls) -> Listener:
    return Listener(health, Limits(HEALTH_BYTES, HEALTH_BYTES), Budget(1 << 20))
