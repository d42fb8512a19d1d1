"""What time does to a connection: clients that stall or are gone, and the end in two steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.extproc.http2_codes import Error, Failed, Status
from epp.extproc.http2_wire import MAX_STREAM, PING, frame, goaway

if TYPE_CHECKING:
    from epp.extproc.http2_connection import Connection

TICK_S = 2.0
GREETING_S = 10.0
"""For the preface, the first SETTINGS, their acknowledgement, and for all of a header block."""
FRAME_S = 30.0
"""For the rest of a frame that has begun."""
STALL_S = 120.0
"""Without a byte more of a message that has begun, or without taking a byte of what is ready."""
SILENT_S, PONG_S = 60.0, 20.0
"""A client that was silent for so long is asked whether it is there, and has so long to answer."""
DRAINED = b"epp-last"
"""PING whose answer shows that the client has seen GOAWAY."""


def tick(connection: Connection, now: float) -> None:
    """Call it every TICK_S."""
    connection.streams.now = now
    if connection.closing:
        return
    late = _late(connection, now)
    if late is not None:
        connection.fail(*late)
        return
    _end_stalled(connection, now)
    if not connection.pinged_at and now - connection.heard_at > SILENT_S:
        connection.pinged_at = now
        connection.streams.out.append(frame(PING, 0, 0, b"epp-here"))


def _late(connection: Connection, now: float) -> tuple[Error, str] | None:
    """What the client should have done by now."""
    since = now - connection.began_at
    if connection.greeting and since > GREETING_S:
        return Error.PROTOCOL_ERROR, f"no HTTP/2 preface and SETTINGS in {GREETING_S:g} s"
    if not connection.settings_acked and since > GREETING_S:
        return Error.SETTINGS_TIMEOUT, f"SETTINGS not acknowledged in {GREETING_S:g} s"
    if connection.block_open and now - connection.block_at > GREETING_S:
        return Error.ENHANCE_YOUR_CALM, f"a header block is not complete after {GREETING_S:g} s"
    if connection.frame_open and now - connection.framed_at > FRAME_S:
        return Error.ENHANCE_YOUR_CALM, f"a frame is not complete after {FRAME_S:g} s"
    if connection.pinged_at and now - connection.pinged_at > PONG_S:
        return Error.NO_ERROR, f"nothing heard, and no answer to PING in {PONG_S:g} s"
    return None


def _end_stalled(connection: Connection, now: float) -> None:
    for stream in list(connection.streams.open.values()):
        if stream.stalled and now - stream.touched_at > STALL_S:
            stream.fail(Failed(Status.CANCELLED, f"nothing moved on this stream for {STALL_S:g} s"))


def drain(connection: Connection) -> None:
    """The first step: the client is asked to open no more streams; what is on its way is still served."""
    connection.streams.out.append(goaway(MAX_STREAM, Error.NO_ERROR) + frame(PING, 0, 0, DRAINED))


def drained(connection: Connection) -> None:
    """The second: what it opens from now on is not looked at, and the connection ends with its last stream."""
    streams = connection.streams
    if not streams.draining:
        streams.draining = True
        streams.last_accepted = streams.last
        streams.out.append(goaway(streams.last, Error.NO_ERROR))


def cut(connection: Connection) -> None:
    """Time is over: end what is open."""
    if not connection.closing:
        connection.streams.fail(Failed(Status.UNAVAILABLE, "the picker is shutting down"))
        drained(connection)
