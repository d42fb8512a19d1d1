"""The streams of one connection, and all that goes out on it: windows, blocked streams, deadlines, how streams end."""

from __future__ import annotations

from typing import Final, final

from epp.extproc.http2_calls import DONE, LEFT, Calls
from epp.extproc.http2_codes import Broken, Error, Failed, Status, StreamBroken
from epp.extproc.http2_headers import Opening
from epp.extproc.http2_limits import Budget, Limits, Spawn
from epp.extproc.http2_stream import Stream
from epp.extproc.http2_wire import (
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    HEADERS,
    MAX_STREAM,
    MAX_WINDOW,
    MESSAGE_HEAD_BYTES,
    NO_TABLE,
    OK,
    RESPONSE,
    frame_head,
    reset,
    trailers,
    window_update,
)

CONNECTION_WINDOW: Final = 16 << 20
"""Bytes a client may send on all streams before more is granted."""
STREAM_WINDOW: Final = 1 << 20
"""Bytes a client may send on a stream before more is granted: most bodies need no WINDOW_UPDATE."""
TURN_BYTES: Final = 1 << 20
"""DATA that leaves in one turn at most, so that what a full socket leaves with us is bounded."""
CLOSED_KEPT: Final = 512
"""Streams remembered after their end, to tell late frames from wrong ones."""
OVER: Final = 0
RESET: Final = 1
ANSWERED: Final = 2
"""How a stream ended: both sides have; we have reset it; we have said all, and the client may not have."""
NEVER: Final = float("inf")


@final
class Streams:
    """Owns the streams: each ends by `end_response`, `reset`, `cancelled`, or with the connection by `close`."""

    __slots__ = (
        "_ended", "_oldest", "at_once", "blocked", "budget", "calls", "closed", "deadlines", "draining", "frame_bytes",
        "given_up", "initial_window", "last", "last_accepted", "limits", "next_deadline", "now", "open", "out",
        "paused", "reserve", "room", "shrink_table", "spawn",
    )  # fmt: skip

    def __init__(self, calls: Calls, limits: Limits, budget: Budget, spawn: Spawn, now: float) -> None:
        self.calls, self.limits, self.budget, self.spawn = calls, limits, budget, spawn
        self.now = now
        """Of this turn."""
        self.out: list[bytes | memoryview] = []
        """What must be written."""
        self.open: dict[int, Stream] = {}
        self.last = 0
        """The highest stream that was opened."""
        self.last_accepted = MAX_STREAM
        self.draining = False
        """No new streams are taken, and the connection is over with the last one."""
        self.closed: dict[int, int] = {}
        """Latest ended streams, and how they did."""
        self._ended: list[int] = []
        self._oldest = 0
        """Their numbers, in a ring; where the first one is."""
        self.deadlines: dict[int, float] = {}
        self.next_deadline = NEVER
        """When to call `expire`."""
        self.room = DEFAULT_WINDOW
        """DATA bytes that may go out in this turn; `reserve` more in later ones."""
        self.reserve = 0
        self.paused = False
        """The socket is full."""
        self.blocked: dict[int, Stream] = {}
        """Streams that wait for room, in the order in which they get it."""
        self.initial_window = DEFAULT_WINDOW
        self.frame_bytes = FRAME_BYTES
        """Largest DATA frame that may go out."""
        self.at_once = min(FRAME_BYTES, limits.send_bytes + MESSAGE_HEAD_BYTES)
        """Largest message, prefix included, that may go out as one frame."""
        self.shrink_table = False
        """The next header block must say that no dynamic table is used."""
        self.given_up = 0
        """Streams that ended by a reset before they were answered; who reads it sets it back."""

    # ---- their beginning

    def idle(self, number: int) -> bool:
        """No stream of this number was ever opened."""
        return number > self.last or not number & 1

    def begin(self, number: int, opening: Opening, *, ended: bool) -> None:
        """A new stream; `ended`: the client says nothing after its headers."""
        if opening.refusal:
            self._answer_at_once(number, opening.refusal, ended=ended)
            return
        if len(self.open) >= self.limits.streams:
            self.refuse(number, Error.REFUSED_STREAM)
            return
        made = self.calls.get(opening.path)
        if made is None:
            told = trailers(Status.UNIMPLEMENTED, f"there is no method {opening.path[:200]}")
            self._answer_at_once(number, RESPONSE + told, ended=ended)
            return
        call = made()
        stream = self.open[number] = Stream(number, self, call, self.initial_window, opening.length)
        call.attach(stream.interject)
        if opening.timeout_s is not None:
            when = self.deadlines[number] = self.now + opening.timeout_s
            self.next_deadline = min(self.next_deadline, when)
        if ended:
            self.end(stream)

    def end(self, stream: Stream) -> None:
        """The client has said all on it."""
        try:
            stream.ended()
        except Failed as failed:
            stream.fail(failed)
        except StreamBroken as error:
            self.reset(stream, error.code, Status.INTERNAL)

    def refuse(self, number: int, code: Error) -> None:
        """Reset a stream that was never begun."""
        self.given_up += 1
        self._remember(number, RESET)
        self.out.append(reset(number, code))

    def _answer_at_once(self, number: int, block: bytes, *, ended: bool) -> None:
        self._header_frame(number, block, END_STREAM)
        self._remember(number, OVER if ended else ANSWERED)

    # ---- their end

    def open_response(self, number: int) -> None:
        self._header_frame(number, RESPONSE, 0)

    def end_response(self, stream: Stream, status: Status, message: str) -> None:
        """Send the trailers. A client that goes on all the same will be told that nobody listens (`late`)."""
        self._say_last(stream, trailers(status, message), status)

    def complete(self, stream: Stream) -> None:
        """The same for a call that is over as it should be."""
        self._say_last(stream, OK, DONE)

    def _say_last(self, stream: Stream, block: bytes, status: Status) -> None:
        self._header_frame(stream.id, block if stream.answered else RESPONSE + block, END_STREAM)
        self._forget(stream, status, OVER if stream.half_closed else ANSWERED)

    def reset(self, stream: Stream, code: Error, status: Status) -> None:
        """End it at once: the client hears `code`, the call `status`."""
        self.given_up += not stream.answered
        self.out.append(reset(stream.id, code))
        self._forget(stream, status, RESET)

    def cancelled(self, stream: Stream) -> None:
        """The client has reset it."""
        self.given_up += not stream.answered
        self._forget(stream, LEFT, OVER)

    def expire(self, now: float) -> None:
        """End the calls whose deadline has come."""
        for number in [number for number, when in self.deadlines.items() if when <= now]:
            self.open[number].fail(Failed(Status.DEADLINE_EXCEEDED, "the call's grpc-timeout is over"))
        self.next_deadline = min(self.deadlines.values(), default=NEVER)

    def fail(self, failed: Failed) -> None:
        """End all calls with a status."""
        for stream in list(self.open.values()):
            stream.fail(failed)

    def close(self) -> None:
        """The connection is gone."""
        for stream in list(self.open.values()):
            self._forget(stream, LEFT, OVER)

    def late(self, number: int) -> None:
        """DATA on a stream that has ended."""
        ended = self.closed.get(number, OVER)
        if ended != RESET:
            self.out.append(reset(number, Error.NO_ERROR if ended == ANSWERED else Error.STREAM_CLOSED))
            if number in self.closed:
                self.closed[number] = RESET

    def _forget(self, stream: Stream, status: Status, ended: int) -> None:
        number = stream.id
        del self.open[number]
        if self.deadlines:
            self.deadlines.pop(number, None)
        if self.blocked:
            self.blocked.pop(number, None)
        self._remember(number, ended)
        stream.close(status)

    def _remember(self, number: int, ended: int) -> None:
        if len(self._ended) < CLOSED_KEPT:
            self._ended.append(number)
        else:
            self.closed.pop(self._ended[self._oldest], None)
            self._ended[self._oldest] = number
            self._oldest = (self._oldest + 1) % CLOSED_KEPT
        self.closed[number] = ended

    def _header_frame(self, number: int, block: bytes, flags: int) -> None:
        if self.shrink_table:
            self.shrink_table = False
            block = NO_TABLE + block
        self.out.append(frame_head(len(block) << 8 | HEADERS, flags | END_HEADERS, number) + block)

    # ---- windows

    def grant(self, stream: Stream) -> None:
        """Let the client send as much again as it has sent, once that is half of a window."""
        size = stream.received - stream.granted
        if size >= STREAM_WINDOW // 2 and not stream.backed_up and not stream.half_closed and not stream.gone:
            stream.granted = stream.received
            self.out.append(window_update(stream.id, size))

    def widen(self, size: int) -> None:
        """The client takes `size` bytes more on the connection. Raises Broken beyond what a window may be."""
        if self.room + self.reserve + size > MAX_WINDOW:
            raise Broken(Error.FLOW_CONTROL_ERROR, "the connection's window is over 2^31-1")
        self.reserve += size
        self.wrote()

    def widen_stream(self, stream: Stream, size: int) -> None:
        """The same for one stream, which alone is reset if it is too much."""
        if stream.window + size > MAX_WINDOW:
            self.reset(stream, Error.FLOW_CONTROL_ERROR, Status.INTERNAL)
            return
        stream.window += size
        stream.unblocked()

    def resize(self, window: int) -> None:
        """New streams get this window; open ones gain or lose the difference, even below zero. Raises Broken."""
        change, self.initial_window = window - self.initial_window, window
        for stream in list(self.open.values()):
            stream.window += change
            if stream.window > MAX_WINDOW:
                raise Broken(Error.FLOW_CONTROL_ERROR, f"the window of stream {stream.id} is over 2^31-1")
            if change > 0:
                stream.unblocked()

    def frame_limit(self, size: int) -> None:
        """The client takes frames of this size."""
        self.frame_bytes = size
        self.at_once = min(size, self.limits.send_bytes + MESSAGE_HEAD_BYTES)

    def pause(self) -> None:
        """The socket takes no more: hold DATA back."""
        self.paused = True
        self.reserve += self.room
        self.room = 0

    def resume(self) -> None:
        self.paused = False
        self.wrote()

    def wrote(self) -> None:
        """`out` is written: there is room for another turn."""
        if self.paused or not self.reserve:
            return
        more = min(self.reserve, TURN_BYTES - self.room)
        self.room += more
        self.reserve -= more
        while self.blocked and self.room > 0:
            self.blocked.pop(next(iter(self.blocked))).unblocked()
