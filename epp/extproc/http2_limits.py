"""What connections are allowed, and what they may use up: messages, streams, bytes kept, patience."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, final

from epp.extproc.http2_calls import Replies
from epp.extproc.http2_codes import Broken, Error, Failed, Status

Cancel = Callable[[], object]
Spawn = Callable[[Awaitable[Replies], Callable[[Replies | BaseException], None]], Cancel]
"""Waits for replies in a task of its own; the callback hears of them, or of what went wrong, exactly once."""


@final
class Budget:
    """Bytes of unfinished or waiting messages, of all connections together. Law: taken = given back + held."""

    __slots__ = ("held", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0

    def take(self, size: int) -> None:
        """Hold so much more; to give back is to lower `held`. Raises Failed beyond the limit; then nothing is held."""
        if self.held + size > self.limit:
            raise Failed(Status.RESOURCE_EXHAUSTED, f"unfinished messages together are over {self.limit} bytes")
        self.held += size


STREAMS: Final = 4_096


@final
class Limits:
    """Largest message each way, and how many streams one connection may have open.

    The client is told that it may open `announced`. More are taken up to `streams`: it opens them before it has heard.
    """

    __slots__ = ("announced", "recv_bytes", "send_bytes", "streams")

    def __init__(self, recv_bytes: int, send_bytes: int, streams: int = STREAMS, announced: int = STREAMS) -> None:
        self.recv_bytes = recv_bytes
        self.send_bytes = send_bytes
        self.streams = streams
        self.announced = announced


@final
class Patience:
    """How much a client may send that brings nothing: a burst, and then so much a second."""

    __slots__ = ("_burst", "_filled_at", "_left", "_per_s")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = self._left = burst
        self._per_s = per_s
        self._filled_at = now

    def spend(self, cost: float, now: float, what: str) -> None:
        """Raises Broken once it is used up."""
        self._left -= cost
        if self._left >= 0:
            return
        self._left = min(self._burst, self._left + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._left < 0:
            raise Broken(Error.ENHANCE_YOUR_CALM, f"too many {what}")
