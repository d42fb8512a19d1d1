"""What RFC 9113 demands of a server, frame by frame."""

from __future__ import annotations

import struct

import hpack
import pytest
from h2.settings import SettingCodes

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_codes import Error, Status
from epp.extproc.http2_wire import PREFACE, frame

from .http2_kit import HELLO, REQUEST, Bare, Client, frames, goaway_code, message, reset_codes

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
BLOCK = hpack.Encoder().encode(REQUEST)
OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)
CALLED = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)


def four(number: int) -> bytes:
    return struct.pack(">L", number)


def setting(key: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HL", key, value))


def block(*fields: tuple[str, str], without: tuple[str, ...] = ()) -> bytes:
    return hpack.Encoder().encode([field for field in REQUEST if field[0] not in without] + list(fields))


def test_settings_go_first_and_the_clients_are_acknowledged() -> None:
    bare = Bare()
    assert [kind for kind, *_ in frames(bare.written())] == [SETTINGS, WINDOW]
    assert bare.say(HELLO) == [(SETTINGS, 1, 0, b"")]


@pytest.mark.parametrize("size", [1, 7, 24, 25])
def test_the_preface_may_come_in_pieces(size: int) -> None:
    bare = Bare()
    wire = HELLO + OPEN + frame(DATA, END_STREAM, 1, message(b"one"))
    for at in range(0, len(wire), size):
        bare.connection.receive(wire[at : at + size])
    assert bare.calls.calls[0].status is Status.OK


WRONG = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", Error.PROTOCOL_ERROR),
    "no settings first": (PREFACE + frame(PING, 0, 0, bytes(8)), Error.PROTOCOL_ERROR),
    "an acknowledgement first": (PREFACE + frame(SETTINGS, 1, 0), Error.PROTOCOL_ERROR),
    "frame too long": (HELLO + struct.pack(">LBL", 16_385 << 8, 0, 1), Error.FRAME_SIZE_ERROR),
    "data on stream 0": (HELLO + frame(DATA, 0, 0, b"x"), Error.PROTOCOL_ERROR),
    "data on an idle stream": (HELLO + frame(DATA, 0, 1, b"x"), Error.PROTOCOL_ERROR),
    "headers on stream 0": (HELLO + frame(HEADERS, 4, 0, BLOCK), Error.PROTOCOL_ERROR),
    "headers on an even stream": (HELLO + frame(HEADERS, 4, 2, BLOCK), Error.PROTOCOL_ERROR),
    "a lower stream": (HELLO + frame(HEADERS, 5, 5, BLOCK) + frame(HEADERS, 5, 3, BLOCK), Error.PROTOCOL_ERROR),
    "headers after the end": (HELLO + CALLED + CALLED, Error.STREAM_CLOSED),
    "padding too long": (HELLO + OPEN + frame(DATA, PADDED, 1, b"\x05abc"), Error.PROTOCOL_ERROR),
    "padding of headers": (HELLO + frame(HEADERS, 4 | PADDED, 1, b"\xff" + BLOCK), Error.PROTOCOL_ERROR),
    "no room for padding": (HELLO + OPEN + frame(DATA, PADDED, 1), Error.PROTOCOL_ERROR),
    "no room for priority": (HELLO + frame(HEADERS, 4 | 0x20, 1, b"abc"), Error.FRAME_SIZE_ERROR),
    "a table index of 0": (HELLO + frame(HEADERS, 4, 1, b"\x80"), Error.COMPRESSION_ERROR),
    "a table index that is not there": (HELLO + frame(HEADERS, 4, 1, b"\xff\x80\x01"), Error.COMPRESSION_ERROR),
    "a block that is cut": (HELLO + frame(HEADERS, 4, 1, BLOCK[:-1]), Error.COMPRESSION_ERROR),
    "a table larger than allowed": (HELLO + frame(HEADERS, 4, 1, b"\x3f\xff\xff\x03" + BLOCK), Error.COMPRESSION_ERROR),
    "a frame within a block": (HELLO + frame(HEADERS, 0, 1, BLOCK) + frame(PING, 0, 0, bytes(8)), Error.PROTOCOL_ERROR),
    "another's continuation": (
        HELLO + frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 4, 3, b""),
        Error.PROTOCOL_ERROR,
    ),
    "continuation of nothing": (HELLO + frame(CONTINUATION, 4, 1, b""), Error.PROTOCOL_ERROR),
    "continuation after the end": (HELLO + OPEN + frame(CONTINUATION, 4, 1, b""), Error.PROTOCOL_ERROR),
    "priority on stream 0": (HELLO + frame(PRIORITY, 0, 0, bytes(5)), Error.PROTOCOL_ERROR),
    "priority of 4 bytes": (HELLO + frame(PRIORITY, 0, 1, bytes(4)), Error.FRAME_SIZE_ERROR),
    "reset of an idle stream": (HELLO + frame(RST, 0, 1, bytes(4)), Error.PROTOCOL_ERROR),
    "reset of stream 0": (HELLO + frame(RST, 0, 0, bytes(4)), Error.PROTOCOL_ERROR),
    "reset of 3 bytes": (HELLO + OPEN + frame(RST, 0, 1, bytes(3)), Error.FRAME_SIZE_ERROR),
    "settings on a stream": (HELLO + frame(SETTINGS, 0, 1), Error.PROTOCOL_ERROR),
    "settings of 5 bytes": (HELLO + frame(SETTINGS, 0, 0, bytes(5)), Error.FRAME_SIZE_ERROR),
    "an acknowledgement with settings": (HELLO + frame(SETTINGS, 1, 0, bytes(6)), Error.FRAME_SIZE_ERROR),
    "a push setting of 2": (HELLO + setting(2, 2), Error.PROTOCOL_ERROR),
    "a window setting of 2^31": (HELLO + setting(4, 1 << 31), Error.FLOW_CONTROL_ERROR),
    "a frame setting of 16383": (HELLO + setting(5, 16_383), Error.PROTOCOL_ERROR),
    "a frame setting of 2^24": (HELLO + setting(5, 1 << 24), Error.PROTOCOL_ERROR),
    "push": (HELLO + frame(PUSH, 4, 1, four(2)), Error.PROTOCOL_ERROR),
    "ping on a stream": (HELLO + frame(PING, 0, 1, bytes(8)), Error.PROTOCOL_ERROR),
    "ping of 7 bytes": (HELLO + frame(PING, 0, 0, bytes(7)), Error.FRAME_SIZE_ERROR),
    "goaway on a stream": (HELLO + frame(GOAWAY, 0, 1, bytes(8)), Error.PROTOCOL_ERROR),
    "goaway of 7 bytes": (HELLO + frame(GOAWAY, 0, 0, bytes(7)), Error.FRAME_SIZE_ERROR),
    "window update of 0": (HELLO + frame(WINDOW, 0, 0, four(0)), Error.PROTOCOL_ERROR),
    "window update of 3 bytes": (HELLO + frame(WINDOW, 0, 0, bytes(3)), Error.FRAME_SIZE_ERROR),
    "window update on an idle stream": (HELLO + frame(WINDOW, 0, 1, four(1)), Error.PROTOCOL_ERROR),
    "the connection's window over 2^31-1": (HELLO + frame(WINDOW, 0, 0, four(2**31 - 1)), Error.FLOW_CONTROL_ERROR),
    "windows over 2^31-1 by a setting": (
        HELLO + OPEN + frame(WINDOW, 0, 1, four(1 << 30)) + setting(4, 2**31 - 1),
        Error.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize(("wire", "code"), WRONG.values(), ids=WRONG.keys())
def test_a_connection_error_is_told_and_ends_everything(wire: bytes, code: Error) -> None:
    bare = Bare()
    assert goaway_code(bare.say(wire)) == code
    assert bare.connection.closing
    assert bare.calls.open == 0
    assert bare.say(OPEN) == []


BROKEN_STREAM = {
    "window update of 0": (OPEN + frame(WINDOW, 0, 1, four(0)), Error.PROTOCOL_ERROR),
    "its window over 2^31-1": (OPEN + frame(WINDOW, 0, 1, four(2**31 - 1)), Error.FLOW_CONTROL_ERROR),
    "headers again without an end": (OPEN + frame(HEADERS, 4, 1, block(without=(":method",))), Error.PROTOCOL_ERROR),
    "trailers with a pseudo-header": (OPEN + frame(HEADERS, 5, 1, BLOCK), Error.PROTOCOL_ERROR),
    "upper-case": (frame(HEADERS, 5, 1, block(("Upper", "x"))), Error.PROTOCOL_ERROR),
    "no path": (frame(HEADERS, 5, 1, block(without=(":path",))), Error.PROTOCOL_ERROR),
    "an empty path": (frame(HEADERS, 5, 1, block((":path", ""), without=(":path",))), Error.PROTOCOL_ERROR),
    "no scheme": (frame(HEADERS, 5, 1, block(without=(":scheme",))), Error.PROTOCOL_ERROR),
    "two methods": (
        frame(HEADERS, 5, 1, hpack.Encoder().encode([(":method", "POST"), *REQUEST])),
        Error.PROTOCOL_ERROR,
    ),
    "a late pseudo-header": (frame(HEADERS, 5, 1, block((":protocol", "x"))), Error.PROTOCOL_ERROR),
    "connection": (frame(HEADERS, 5, 1, block(("connection", "close"))), Error.PROTOCOL_ERROR),
    "te": (frame(HEADERS, 5, 1, block(("te", "gzip"), without=("te",))), Error.PROTOCOL_ERROR),
    "a line break": (frame(HEADERS, 5, 1, block(("x", "a\r\nb"))), Error.PROTOCOL_ERROR),
    "a space in front": (frame(HEADERS, 5, 1, block(("x", " a"))), Error.PROTOCOL_ERROR),
    "content-length": (frame(HEADERS, 5, 1, block(("content-length", "x"))), Error.PROTOCOL_ERROR),
}


@pytest.mark.parametrize(("wire", "code"), BROKEN_STREAM.values(), ids=BROKEN_STREAM.keys())
def test_a_stream_error_ends_its_stream_alone(wire: bytes, code: Error) -> None:
    bare = Bare()
    assert reset_codes(bare.say(HELLO + wire)) == {1: code}
    answered = bare.say(frame(HEADERS, 5, 3, BLOCK))
    assert [(kind, flags, stream) for kind, flags, stream, _ in answered] == [(HEADERS, 5, 3)]
    assert bare.calls.open == 0


def test_data_after_the_clients_end_resets_the_stream() -> None:
    bare = Bare(lambda wire: None)
    bare.say(HELLO + OPEN + frame(DATA, END_STREAM, 1, message(b"later")))
    assert reset_codes(bare.say(frame(DATA, 0, 1, b"x"))) == {1: Error.STREAM_CLOSED}


def test_what_was_on_its_way_when_we_reset_is_let_pass() -> None:
    bare = Bare()
    bare.say(HELLO + OPEN + frame(DATA, 0, 1, message(b"bye")))
    trailers = frame(HEADERS, 5, 1, block(without=(":method", ":scheme", ":path", ":authority")))
    late = frame(DATA, 0, 1, b"late") + frame(WINDOW, 0, 1, four(9)) + frame(RST, 0, 1, four(8))
    assert reset_codes(bare.say(late)) == {1: Error.NO_ERROR}
    assert bare.say(late + trailers) == []


def test_data_on_a_stream_long_over_is_told_so() -> None:
    bare = Bare()
    bare.say(HELLO + CALLED)
    assert reset_codes(bare.say(frame(DATA, 0, 1, b"late"))) == {1: Error.STREAM_CLOSED}


def test_padding_priority_and_pieces_of_a_block_are_taken() -> None:
    bare = Bare()
    bare.written()
    first = bytes([3]) + bytes(5) + BLOCK[:4] + bytes(3)
    wire = frame(HEADERS, PADDED | 0x20, 1, first) + frame(CONTINUATION, 0, 1, BLOCK[4:9])
    wire += frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]) + frame(PRIORITY, 0, 7, bytes(5))
    wire += frame(DATA, PADDED | END_STREAM, 1, b"\x02" + message(b"one") + bytes(2))
    answered = bare.say(HELLO + wire)
    assert [kind for kind, *_ in answered] == [SETTINGS, HEADERS, DATA, HEADERS]
    assert bare.calls.got == [b"one"]


def test_padding_does_not_count_in_a_content_length() -> None:
    bare = Bare()
    wire = frame(HEADERS, 4, 1, block(("content-length", "8")))
    bare.say(HELLO + wire + frame(DATA, PADDED | END_STREAM, 1, b"\x02" + message(b"one") + bytes(2)))
    assert bare.calls.calls[0].status is Status.OK


def test_unknown_frames_settings_and_flags_are_ignored() -> None:
    bare = Bare()
    wire = frame(0x42, 0xFF, 0, b"what") + setting(0x99, 7) + frame(GOAWAY, 0, 0, bytes(8) + b"bye")
    assert bare.say(HELLO + wire + CALLED)[-1][:3] == (HEADERS, 5, 1)


def test_a_ping_is_answered_with_its_bytes() -> None:
    assert Bare().say(HELLO + frame(PING, 0, 0, b"12345678"))[-1] == (PING, 1, 0, b"12345678")


def test_a_ping_that_is_an_answer_is_not_answered() -> None:
    bare = Bare()
    bare.written()
    assert [kind for kind, *_ in bare.say(HELLO + frame(PING, 1, 0, bytes(8)))] == [SETTINGS]


def test_more_streams_than_allowed_are_refused() -> None:
    bare = Bare(streams=1)
    assert reset_codes(bare.say(HELLO + OPEN + frame(HEADERS, 5, 3, BLOCK))) == {3: Error.REFUSED_STREAM}
    bare.say(frame(DATA, END_STREAM, 1, b""))
    assert reset_codes(bare.say(frame(HEADERS, 5, 5, BLOCK))) == {}


def test_a_client_that_shrinks_the_header_table_can_read_on() -> None:
    client = Client(settings={SettingCodes.HEADER_TABLE_SIZE: 0})
    assert client.status(client.open(end=True)) == 0
    assert client.status(client.open(end=True)) == 0


def test_blocks_are_known_only_while_the_table_is_the_same() -> None:
    client = Client()
    for value in ("a", "b", "b", "b", "a", "c", "a", "b"):
        number = client.open(("x-other", value), end=True, path=f"/tests.Echo/{value}")
        assert client.ending(number)["grpc-message"] == f"there is no method /tests.Echo/{value}"


# ---- the end


def test_a_drain_has_two_steps() -> None:
    bare = Bare()
    bare.say(HELLO + OPEN)
    upkeep.drain(bare.connection)
    (first, asked) = frames(bare.written())
    assert struct.unpack(">LL", first[3]) == (2**31 - 1, 0)
    assert bare.say(frame(HEADERS, 4, 3, BLOCK)) == []
    (last,) = bare.say(frame(PING, 1, 0, asked[3]))
    assert struct.unpack(">LL", last[3]) == (3, 0)
    assert bare.say(frame(HEADERS, 4, 5, BLOCK)) == []
    assert len(bare.calls.calls) == 2
    bare.say(frame(DATA, END_STREAM, 1, b""))
    assert not bare.connection.closing
    bare.say(frame(DATA, END_STREAM, 3, b""))
    assert bare.connection.closing


def test_streams_that_are_open_when_time_is_over_are_told() -> None:
    client = Client()
    number = client.open()
    upkeep.cut(client.connection)
    client.exchange()
    assert client.status(number) == Status.UNAVAILABLE
    assert client.connection.closing
    assert client.calls.open == 0
