"""A socket of asyncio around one HTTP/2 connection: what one turn of the loop has to say leaves in one write."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, cast, final

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_calls import Calls, Replies
from epp.extproc.http2_codes import Error
from epp.extproc.http2_connection import Connection
from epp.extproc.http2_limits import Budget, Cancel, Limits

log = logging.getLogger("epp.extproc")
WRITE_BYTES: Final = 1 << 18
"""What a socket may owe its client before DATA is held back."""
UNREAD_BYTES: Final = 1 << 22
"""What may be owed beside: a client that asks and asks and reads nothing is cut off."""
EARLIEST_S: Final = 0.01
"""Deadlines are looked at no more often than this."""


@final
class Peer:
    """One client, as an asyncio.Protocol. `live` are all there are.

    It has all methods and does not derive from that class: compiled, it would be as slow as what it derives from.
    """

    __slots__ = ("_live", "_loop", "_tasks", "_timer", "_timer_at", "_transport", "connection")

    def __init__(self, calls: Calls, limits: Limits, budget: Budget, live: Live) -> None:
        self._loop = asyncio.get_running_loop()
        self._live = live
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Future[Replies]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")
        # Time is the loop's, so that deadlines and timers agree.
        self.connection = Connection(calls, limits, budget, self._spawn, self._loop.time)

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_BYTES)
        self._live.add(self)
        self.flush()

    def data_received(self, wire: bytes) -> None:
        try:
            self.connection.receive(wire)
        except Exception:
            log.exception("connection closed: internal error")
            self.connection.fail(Error.INTERNAL_ERROR, "internal error")
        self.flush()

    def eof_received(self) -> bool:
        """A client that says no more wants no answer either: HTTP/2 has no half of a connection."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self.connection.streams.close()
        self._live.discard(self)

    def pause_writing(self) -> None:
        self.connection.streams.pause()

    def resume_writing(self) -> None:
        self.connection.streams.resume()
        self.flush()

    # ---- the connection's side

    def flush(self) -> None:
        """Write what there is to write, then do what is due."""
        transport, connection = self._transport, self.connection
        if transport is None:
            return
        out = connection.streams.out
        while out:
            transport.write(b"".join(out))
            out.clear()
            connection.streams.wrote()
        if connection.closing:
            transport.close()
        elif connection.streams.paused and transport.get_write_buffer_size() > WRITE_BYTES + UNREAD_BYTES:
            log.warning("connection cut: the client reads nothing")
            transport.abort()
        if connection.streams.next_deadline < self._timer_at:
            self._set_timer()

    def tick(self) -> None:
        upkeep.tick(self.connection, self._loop.time())
        self.flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = max(self.connection.streams.next_deadline, self._loop.time() + EARLIEST_S)
        self._timer = self._loop.call_at(self._timer_at, self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_at = None, float("inf")
        self.connection.streams.now = self._loop.time()
        self.connection.streams.expire(self._loop.time())
        self.flush()

    def _spawn(self, replies: Awaitable[Replies], done: Callable[[Replies | BaseException], None]) -> Cancel:
        task = asyncio.ensure_future(replies)
        self._tasks.add(task)

        def finished(task: asyncio.Future[Replies]) -> None:
            self._tasks.discard(task)
            if task.cancelled():
                done(asyncio.CancelledError())
            else:
                done(task.exception() or task.result())
            self.flush()

        task.add_done_callback(finished)
        return task.cancel


class Live:
    """The clients that are connected."""

    def __init__(self) -> None:
        self.peers: set[Peer] = set()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, peer: Peer) -> None:
        self.peers.add(peer)
        self._none.clear()

    def discard(self, peer: Peer) -> None:
        self.peers.discard(peer)
        if not self.peers:
            self._none.set()

    async def empty(self, within_s: float) -> bool:
        """True once nobody is connected, False if that takes too long."""
        try:
            async with asyncio.timeout(within_s):
                await self._none.wait()
        except TimeoutError:
            return False
        return True
