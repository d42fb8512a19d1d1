"""One HTTP/2 connection, the server's end, as a state machine without I/O: bytes in, bytes out.

`receive` takes what the socket gave and appends what must be written to `out`; whoever drives it writes that, calls
`wrote`, and closes the socket once `closing` is true. `tick` is called every few seconds. What a frame of DATA or
HEADERS does is here, all other frames are in http2_control.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, final

from epp.extproc.http2_calls import Calls
from epp.extproc.http2_codes import Broken, Error, Failed, Status, StreamBroken
from epp.extproc.http2_control import FRAMES, rst_stream, welcome
from epp.extproc.http2_headers import BLOCK_BYTES, HeaderReader
from epp.extproc.http2_limits import Budget, Limits, Patience, Spawn
from epp.extproc.http2_stream import Stream
from epp.extproc.http2_streams import CONNECTION_WINDOW, OVER, STREAM_WINDOW, Streams
from epp.extproc.http2_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    FRAME_HEAD_BYTES,
    HEADERS,
    MESSAGE_HEAD_BYTES,
    PADDED,
    PREFACE,
    PRIORITISED,
    RST_STREAM,
    SETTINGS,
    goaway,
    unpadded,
    window_update,
)  # fmt: skip

log = logging.getLogger("epp.extproc")
GREETED: Final = -1
"""In place of a stream whose header block is open: SETTINGS must come first."""
FRAGMENTS: Final = 32
"""Frames of one header block at most."""


@final
class Connection:
    """Reads frames. What they do to streams, and all that goes out, is in `streams`."""

    __slots__ = (
        "_block", "_block_ends", "_block_of", "_clock", "_failed", "_greeting", "_reader", "_received", "_resets",
        "_rest", "began_at", "block_at", "framed_at", "heard_at", "idle_frames", "pinged_at", "settings_acked",
        "streams",
    )  # fmt: skip

    def __init__(self, calls: Calls, limits: Limits, budget: Budget, spawn: Spawn, clock: Callable[[], float]) -> None:
        now = clock()
        self.streams = Streams(calls, limits, budget, spawn, now)
        self.began_at = self.heard_at = self.framed_at = self.block_at = now
        """When it was opened; when bytes came last, and a whole frame; when the header block began."""
        self.settings_acked = False
        self.pinged_at = 0.0
        """When a PING was sent that nothing has followed; 0 = none."""
        self.idle_frames = Patience(10_000, 2_000, now)
        """For frames that bring nothing."""
        self._resets = Patience(2_000, 200, now)
        self._clock = clock
        self._failed = False
        self._reader = HeaderReader()
        self._greeting: bytes | None = b""
        """What is here of the preface; None once it is done."""
        self._rest = b""
        self._received = 0
        """DATA bytes since the connection's window was last opened."""
        self._block: list[bytes] = []
        self._block_of = GREETED
        """The stream whose header block is open: then only CONTINUATION may come; 0 = none."""
        self._block_ends = False
        welcome(self.streams)

    # ---- in

    def receive(self, wire: bytes) -> None:
        """Take what the socket gave."""
        if self.closing:
            return
        self.streams.now = self.heard_at = self._clock()
        self.pinged_at = 0.0
        try:
            if self._greeting is not None:
                wire = self._greeted(self._greeting + wire)
            self._frames(self._rest + wire if self._rest else wire)
            if self.streams.given_up:
                self._count_given_up()
        except Broken as error:
            self.fail(error.code, str(error))

    def _count_given_up(self) -> None:
        """A rapid reset costs us more than the client, so there is a bound; a stream that was answered is paid for."""
        count, self.streams.given_up = self.streams.given_up, 0
        self._resets.spend(count, self.heard_at, "streams given up or refused before they were answered")

    def _greeted(self, seen: bytes) -> bytes:
        """What follows the preface."""
        if not PREFACE.startswith(seen[: len(PREFACE)]):
            raise Broken(Error.PROTOCOL_ERROR, "the client does not speak HTTP/2")
        self._greeting = seen if len(seen) < len(PREFACE) else None
        return seen[len(PREFACE) :]

    def _frames(self, wire: bytes) -> None:
        at, end = 0, len(wire)
        while end - at >= FRAME_HEAD_BYTES:
            size = wire[at] << 16 | wire[at + 1] << 8 | wire[at + 2]
            if size > FRAME_BYTES:
                raise Broken(Error.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            start = at + FRAME_HEAD_BYTES
            stop = start + size
            if stop > end:
                break
            kind, flags = wire[at + 3], wire[at + 4]
            number = (wire[at + 5] & 0x7F) << 24 | wire[at + 6] << 16 | wire[at + 7] << 8 | wire[at + 8]
            at = stop
            if self._block_of:
                self._only(kind, flags, number)
            if kind == DATA:
                self._on_data(flags, number, wire, start, stop)
            elif kind == HEADERS:
                self._on_headers(flags, number, wire[start:stop])
            elif kind == RST_STREAM:
                rst_stream(self, flags, number, wire[start:stop])
            elif kind == CONTINUATION:
                self._on_continuation(flags, wire[start:stop])
            else:
                self._on_other(kind, flags, number, wire[start:stop])
        if at:
            self.framed_at = self.heard_at
        self._rest = wire[at:]

    def _only(self, kind: int, flags: int, number: int) -> None:
        if self._block_of == GREETED:
            if kind != SETTINGS or flags & 1:
                raise Broken(Error.PROTOCOL_ERROR, "the first frame must be SETTINGS")
            self._block_of = 0
        elif kind != CONTINUATION or number != self._block_of:
            raise Broken(Error.PROTOCOL_ERROR, "another frame within a header block")

    def _on_other(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind < len(FRAMES):
            FRAMES[kind](self, flags, number, payload)
        else:
            self.idle_frames.spend(1, self.heard_at, "frames of unknown types")

    def _on_data(self, flags: int, number: int, wire: bytes, start: int, stop: int) -> None:
        size = stop - start
        streams = self.streams
        self._received += size
        if self._received >= CONNECTION_WINDOW // 4:
            streams.out.append(window_update(0, self._received))
            self._received = 0
        stream = streams.open.get(number)
        if stream is None or stream.half_closed:
            self._stray(number, stream)
            return
        stream.received += size
        if stream.received - stream.granted > STREAM_WINDOW:
            streams.reset(stream, Error.FLOW_CONTROL_ERROR, Status.INTERNAL)
            return
        try:
            if not flags & PADDED and not stream.building and stream.whole(wire, start, size):
                stream.message(wire[start + MESSAGE_HEAD_BYTES : stop])
            else:
                self._on_part(stream, flags, wire[start:stop])
        except Failed as failed:
            stream.fail(failed)
        if flags & END_STREAM and not stream.gone:
            streams.end(stream)
        elif stream.received - stream.granted >= STREAM_WINDOW // 2:
            streams.grant(stream)

    def _on_part(self, stream: Stream, flags: int, payload: bytes) -> None:
        """DATA that is not exactly one message. Raises Failed and Broken."""
        if flags & PADDED:
            stream.padding += len(payload)
            payload = unpadded(flags, payload)
            stream.padding -= len(payload)
        if payload:
            stream.arrived(payload)
        elif not flags & END_STREAM:
            self.idle_frames.spend(1, self.heard_at, "empty DATA frames")

    def _stray(self, number: int, stream: Stream | None) -> None:
        """DATA where none may come."""
        if stream is not None:
            self.streams.reset(stream, Error.STREAM_CLOSED, Status.INTERNAL)
        elif self.streams.idle(number):
            raise Broken(Error.PROTOCOL_ERROR, f"DATA on stream {number}, which is not open")
        else:
            self.idle_frames.spend(1, self.heard_at, "frames on closed streams")
            self.streams.late(number)

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        payload = unpadded(flags, payload)
        if flags & PRIORITISED:
            if len(payload) < 5:
                raise Broken(Error.FRAME_SIZE_ERROR, "HEADERS too short for the priority it announces")
            payload = payload[5:]
        if not number & 1:
            raise Broken(Error.PROTOCOL_ERROR, f"HEADERS on stream {number}, which no client may open")
        if flags & END_HEADERS:
            self._headers(number, payload, bool(flags & END_STREAM))
        else:
            self._block, self._block_of, self._block_ends = [payload], number, bool(flags & END_STREAM)
            self.block_at = self.heard_at

    def _on_continuation(self, flags: int, payload: bytes) -> None:
        if not self._block_of:
            raise Broken(Error.PROTOCOL_ERROR, "CONTINUATION without a header block")
        self._block.append(payload)
        if len(self._block) > FRAGMENTS or sum(map(len, self._block)) > BLOCK_BYTES:
            raise Broken(Error.ENHANCE_YOUR_CALM, f"a header block of over {BLOCK_BYTES} bytes or {FRAGMENTS} frames")
        if flags & END_HEADERS:
            number, block, self._block, self._block_of = self._block_of, b"".join(self._block), [], 0
            self._headers(number, block, self._block_ends)

    @property
    def greeting(self) -> bool:
        """The client's preface and first SETTINGS are not here yet."""
        return self._block_of == GREETED

    @property
    def block_open(self) -> bool:
        return self._block_of > 0

    @property
    def frame_open(self) -> bool:
        return bool(self._rest)

    # ---- header blocks

    def _headers(self, number: int, block: bytes, ended: bool) -> None:
        streams = self.streams
        stream = streams.open.get(number)
        if stream is not None:
            self._trailers(stream, block, ended)
        elif number <= streams.last:
            self._late(number, block)
        elif number > streams.last_accepted:
            self._reader.skip(block)
        else:
            streams.last = number
            try:
                opening = self._reader.opening(block)
            except StreamBroken as error:
                streams.refuse(number, error.code)
            else:
                streams.begin(number, opening, ended=ended)

    def _trailers(self, stream: Stream, block: bytes, ended: bool) -> None:
        try:
            self._reader.trailers(block)
        except StreamBroken as error:
            self.streams.reset(stream, error.code, Status.INTERNAL)
            return
        if stream.half_closed:
            self.streams.reset(stream, Error.STREAM_CLOSED, Status.INTERNAL)
        elif not ended:
            self.streams.reset(stream, Error.PROTOCOL_ERROR, Status.INTERNAL)
        else:
            self.streams.end(stream)

    def _late(self, number: int, block: bytes) -> None:
        """HEADERS on a stream that is over, or was passed over."""
        self._reader.skip(block)
        ended = self.streams.closed.get(number)
        if ended is None:
            raise Broken(Error.PROTOCOL_ERROR, f"stream {number} after stream {self.streams.last}")
        if ended == OVER:
            raise Broken(Error.STREAM_CLOSED, f"HEADERS on stream {number}, which is over")
        self.idle_frames.spend(1, self.heard_at, "frames on closed streams")

    # ---- the end

    @property
    def closing(self) -> bool:
        """The socket must be closed once all is written."""
        return self._failed or (self.streams.draining and not self.streams.open)

    def fail(self, code: Error, why: str) -> None:
        """Tell the client why it is over."""
        if self._failed:
            return
        self._failed = True
        log.warning("connection closed: %s", why, extra={"code": code.name})
        self.streams.out.append(goaway(self.streams.last, code, why))
        self.streams.close()
