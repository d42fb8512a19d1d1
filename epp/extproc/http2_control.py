"""What each frame does that carries neither DATA nor headers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from epp.extproc.http2_codes import Broken, Error, Setting, Status
from epp.extproc.http2_headers import LIST_BYTES
from epp.extproc.http2_streams import CONNECTION_WINDOW, STREAM_WINDOW, Streams
from epp.extproc.http2_upkeep import DRAINED, drained
from epp.extproc.http2_wire import (
    ACK,
    DEFAULT_WINDOW,
    MAX_STREAM,
    MAX_WINDOW,
    PING,
    SETTINGS,
    frame,
    settings,
    window_update,
)

if TYPE_CHECKING:
    from epp.extproc.http2_connection import Connection

LARGEST_FRAME: Final = 65_536
"""Of what we send, however much more the client would take."""
SETTINGS_AT_ONCE: Final = 64
SMALL_UPDATE: Final = 64
"""Windows that grow by less than this cost more to serve than they carry."""
Act = Callable[["Connection", int, int, bytes], None]


def welcome(streams: Streams) -> None:
    """What a client is told first."""
    told = {
        Setting.MAX_CONCURRENT_STREAMS: min(streams.limits.announced, streams.limits.streams),
        Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        Setting.MAX_HEADER_LIST_SIZE: LIST_BYTES,
    }
    streams.out += [settings(told), window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)]


def _sized(payload: bytes, size: int, what: str) -> None:
    if len(payload) != size:
        raise Broken(Error.FRAME_SIZE_ERROR, f"{what} must have {size} bytes, not {len(payload)}")


def _of_connection(number: int, what: str) -> None:
    if number:
        raise Broken(Error.PROTOCOL_ERROR, f"{what} on stream {number}")


def _waste(connection: Connection, what: str, cost: float = 1) -> None:
    connection.idle_frames.spend(cost, connection.heard_at, f"{what} frames")


def _priority(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """Says in which order things matter: nothing here waits for its turn."""
    if not number:
        raise Broken(Error.PROTOCOL_ERROR, "PRIORITY on stream 0")
    _sized(payload, 5, "PRIORITY")
    _waste(connection, "PRIORITY")


def rst_stream(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """Called by the connection itself, as most streams end so. Raises Broken, as all of these."""
    _sized(payload, 4, "RST_STREAM")
    streams = connection.streams
    stream = streams.open.get(number)
    if stream is not None:
        streams.cancelled(stream)
    elif streams.idle(number):
        raise Broken(Error.PROTOCOL_ERROR, f"RST_STREAM on stream {number}, which is not open")
    else:
        _waste(connection, "RST_STREAM")


def _settings(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    _of_connection(number, "SETTINGS")
    if flags & ACK:
        _sized(payload, 0, "SETTINGS with ACK")
        connection.settings_acked = True
        _waste(connection, "SETTINGS")
        return
    if len(payload) % 6 or len(payload) > 6 * SETTINGS_AT_ONCE:
        raise Broken(Error.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
    # A change of windows goes through all open streams.
    _waste(connection, "SETTINGS", 10)
    # First, since wider windows may let DATA go at once, which the client expects only after this.
    connection.streams.out.append(frame(SETTINGS, ACK, 0))
    for key, value in struct.iter_unpack(">HL", payload):
        act = _SETTING.get(key)
        if act is not None:
            act(connection, value)


def _set_table(connection: Connection, value: int) -> None:
    # We never fill the table; only its shrinking has to be acknowledged in a block.
    if value < 4_096:
        connection.streams.shrink_table = True


def _set_push(connection: Connection, value: int) -> None:
    if value > 1:
        raise Broken(Error.PROTOCOL_ERROR, f"ENABLE_PUSH {value}")


def _set_window(connection: Connection, value: int) -> None:
    if value > MAX_WINDOW:
        raise Broken(Error.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE {value}")
    if value != connection.streams.initial_window:
        _waste(connection, "SETTINGS", len(connection.streams.open) / 16)
        connection.streams.resize(value)


def _set_frame(connection: Connection, value: int) -> None:
    if not 16_384 <= value < 1 << 24:
        raise Broken(Error.PROTOCOL_ERROR, f"MAX_FRAME_SIZE {value}")
    connection.streams.frame_limit(min(value, LARGEST_FRAME))


_SETTING: dict[int, Callable[[Connection, int], None]] = {
    Setting.HEADER_TABLE_SIZE: _set_table,
    Setting.ENABLE_PUSH: _set_push,
    Setting.INITIAL_WINDOW_SIZE: _set_window,
    Setting.MAX_FRAME_SIZE: _set_frame,
}


def _push_promise(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    raise Broken(Error.PROTOCOL_ERROR, "PUSH_PROMISE from a client")


def _ping(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    _of_connection(number, "PING")
    _sized(payload, 8, "PING")
    _waste(connection, "PING")
    if not flags & ACK:
        connection.streams.out.append(frame(PING, ACK, 0, payload))
    elif payload == DRAINED:
        drained(connection)


def _goaway(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """The client will open no more streams; those that are open go on."""
    _of_connection(number, "GOAWAY")
    if len(payload) < 8:
        raise Broken(Error.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
    _waste(connection, "GOAWAY")


def _window_update(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    _sized(payload, 4, "WINDOW_UPDATE")
    streams = connection.streams
    size = int.from_bytes(payload, "big") & MAX_STREAM
    if size < SMALL_UPDATE:
        _waste(connection, "small WINDOW_UPDATE")
    stream = streams.open.get(number)
    if stream is not None and size:
        streams.widen_stream(stream, size)
    elif stream is not None:
        streams.reset(stream, Error.PROTOCOL_ERROR, Status.INTERNAL)
    elif number:
        if streams.idle(number):
            raise Broken(Error.PROTOCOL_ERROR, f"WINDOW_UPDATE on stream {number}, which is not open")
        _waste(connection, "WINDOW_UPDATE")
    elif size:
        streams.widen(size)
    else:
        raise Broken(Error.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")


def _none(connection: Connection, flags: int, number: int, payload: bytes) -> None:
    """DATA and HEADERS never come here."""


FRAMES: Final[tuple[Act, ...]] = (
    _none, _none, _priority, rst_stream, _settings, _push_promise, _ping, _goaway, _window_update,
)  # fmt: skip
"""By type."""
