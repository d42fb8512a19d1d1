"""Clients that mean harm, or are broken as if they did: memory and work stay bounded, and they are told to be calm."""

from __future__ import annotations

import hpack
import pytest

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_codes import Error, Status
from epp.extproc.http2_streams import CLOSED_KEPT
from epp.extproc.http2_wire import PREFACE, frame

from .http2_kit import HELLO, REQUEST, Bare, Client, frames, goaway_code, message, reset_codes
from .test_http2_connection import (
    BLOCK,
    CONTINUATION,
    DATA,
    END_STREAM,
    HEADERS,
    OPEN,
    PING,
    PRIORITY,
    RST,
    SETTINGS,
    WINDOW,
    four,
    setting,
)

CALM = Error.ENHANCE_YOUR_CALM


def flood(bare: Bare, wire: bytes, times: int, *, batch: int = 100) -> Error | None:
    """The code the client is sent away with, if it is."""
    for _ in range(times // batch):
        code = goaway_code(bare.say(wire * batch))
        if code is not None:
            return code
    return None


FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)),
    "settings": frame(SETTINGS, 0, 0),
    "acknowledgements": frame(SETTINGS, 1, 0),
    "priority": frame(PRIORITY, 0, 1, bytes(5)),
    "unknown": frame(0x77, 0, 0),
    "empty data": frame(DATA, 0, 1),
    "small window updates": frame(WINDOW, 0, 0, four(1)),
    "resets of the dead": frame(RST, 0, 3, four(8)),
    "data for the dead": frame(DATA, 0, 3, b"x"),
    "goaway": frame(7, 0, 0, bytes(8)),
}


@pytest.mark.parametrize("wire", FLOODS.values(), ids=FLOODS.keys())
def test_a_flood_is_sent_away(wire: bytes) -> None:
    bare = Bare()
    bare.say(HELLO + OPEN + frame(HEADERS, 5, 3, BLOCK))
    assert flood(bare, wire, 20_000) == CALM
    assert bare.calls.open == 0


@pytest.mark.parametrize("name", ["ping", "empty data", "small window updates"])
def test_what_comes_slowly_is_no_flood(name: str) -> None:
    bare = Bare()
    bare.say(HELLO + OPEN)
    for _ in range(300):
        bare.clock.now += 0.1
        assert goaway_code(bare.say(FLOODS[name] * 100)) is None


def opened(number: int) -> bytes:
    return frame(HEADERS, 4, number, BLOCK)


def test_rapid_resets_are_sent_away_and_leave_nothing() -> None:
    bare = Bare()
    bare.say(HELLO)
    code = None
    for number in range(1, 10_001, 2):
        code = code or goaway_code(bare.say(opened(number) + frame(RST, 0, number, four(8))))
    assert code == CALM
    assert (bare.calls.open, len(bare.streams.open), bare.budget.held) == (0, 0, 0)
    assert len(bare.streams.closed) <= CLOSED_KEPT


def test_resets_of_answered_streams_are_how_proxies_end_them() -> None:
    bare = Bare()
    bare.say(HELLO)
    for number in range(1, 10_001, 2):
        wire = opened(number) + frame(DATA, 0, number, message(b"one")) + frame(RST, 0, number, four(8))
        assert goaway_code(bare.say(wire)) is None


def test_streams_that_we_are_made_to_reset_count_too() -> None:
    bare = Bare()
    bare.say(HELLO)
    code = None
    for number in range(1, 10_001, 2):
        code = code or goaway_code(bare.say(opened(number) + frame(WINDOW, 0, number, four(0))))
    assert code == CALM


@pytest.mark.parametrize("piece", [b"", b"x", b"x" * 16_000], ids=["empty", "short", "long"])
def test_a_header_block_without_end_is_sent_away(piece: bytes) -> None:
    bare = Bare()
    wire = HELLO + frame(HEADERS, 0, 1, piece) + frame(CONTINUATION, 0, 1, piece) * 100
    assert goaway_code(bare.say(wire)) == CALM


def test_a_hpack_bomb_is_sent_away() -> None:
    encoder = hpack.Encoder()
    big = encoder.encode([*REQUEST, ("x", "y" * 3_000)])
    bomb = big + b"\xbe" * 8_000  # the same 3,000 bytes, 8,000 times
    bare = Bare()
    assert goaway_code(bare.say(HELLO + frame(HEADERS, 4, 1, bomb))) == CALM


def test_oversized_headers_are_sent_away() -> None:
    block = hpack.Encoder().encode([*REQUEST, *((f"x-{n}", "y" * 40) for n in range(300))])
    assert goaway_code(Bare().say(HELLO + frame(HEADERS, 4, 1, block[:16_384]))) in {CALM, Error.COMPRESSION_ERROR}


def test_a_message_in_pieces_of_one_byte_is_kept_as_bytes() -> None:
    bare = Bare(lambda _: [])
    bare.say(HELLO + OPEN)
    wire = message(b"x" * 20_000)
    for at in range(len(wire)):
        bare.connection.receive(frame(DATA, 0, 1, wire[at : at + 1]))
    assert bare.calls.got == [b"x" * 20_000]


def test_changing_windows_again_and_again_is_sent_away() -> None:
    bare = Bare(streams=4_000)
    bare.say(HELLO + b"".join(opened(number) for number in range(1, 4_001, 2)))
    code = None
    for turn in range(400):
        code = code or goaway_code(bare.say(setting(4, 1_000 + turn)))
    assert code == CALM


# ---- those who take their time


def acked() -> Bare:
    bare = Bare()
    bare.say(HELLO + frame(SETTINGS, 1, 0))
    return bare


def late(wire: bytes, seconds: float, *, bare: Bare | None = None) -> Error | None:
    """How a connection ends that says this and then nothing."""
    one = bare or acked()
    one.connection.receive(wire)
    one.written()
    one.clock.now += seconds
    upkeep.tick(one.connection, one.clock.now)
    found = one.written()
    return goaway_code(frames(found))


@pytest.mark.parametrize("wire", [b"", PREFACE[:10], PREFACE], ids=["nothing", "half the preface", "no settings"])
def test_a_client_that_does_not_begin_is_sent_away(wire: bytes) -> None:
    assert late(wire, 9, bare=Bare()) is None
    assert late(wire, 11, bare=Bare()) == Error.PROTOCOL_ERROR


def test_settings_must_be_acknowledged_in_time() -> None:
    assert late(HELLO, 11, bare=Bare()) == Error.SETTINGS_TIMEOUT


def test_a_header_block_must_come_in_time() -> None:
    wire = frame(HEADERS, 0, 1, BLOCK[:5])
    assert late(wire, 9) is None
    assert late(wire, 11) == CALM


def test_a_frame_must_come_in_time() -> None:
    wire = OPEN + frame(DATA, 0, 1, message(b"x" * 100))[:50]
    assert late(wire, 29) is None
    assert late(wire, 31) == CALM


def test_a_client_that_is_gone_is_noticed() -> None:
    bare = acked()
    bare.say(OPEN)
    assert late(b"", 61, bare=bare) is None
    assert bare.connection.pinged_at
    bare.clock.now += 21
    upkeep.tick(bare.connection, bare.clock.now)
    assert bare.connection.closing
    assert bare.calls.calls[0].status is Status.CANCELLED


def test_a_client_that_answers_a_ping_is_there() -> None:
    bare = acked()
    bare.say(OPEN)
    late(b"", 61, bare=bare)
    bare.say(frame(PING, 1, 0, b"epp-here"))
    assert late(b"", 21, bare=bare) is None


def test_a_message_that_stalls_ends_its_stream() -> None:
    client = Client()
    stalled, other = client.open(), client.open()
    client.send_raw(stalled, message(b"x" * 100)[:50])
    client.clock.now += 121
    upkeep.tick(client.connection, client.clock.now)
    client.exchange()
    assert client.status(stalled) == Status.CANCELLED
    assert client.budget.held == 0
    client.send(other, b"fine", end=True)
    assert client.status(other) == 0


def test_a_reply_that_nobody_takes_ends_its_stream() -> None:
    client = Client(lambda _: [b"y" * 100_000])
    number = client.open()
    client.send(number, b"go")
    client.clock.now += 121
    upkeep.tick(client.connection, client.clock.now)
    client.exchange()
    assert client.resets() == {number: Error.CANCEL}


def test_a_lost_connection_closes_every_call_once() -> None:
    bare = Bare(lambda wire: None if wire == b"later" else [b"y" * 100_000])
    bare.say(HELLO + b"".join(opened(number) for number in (1, 3, 5, 7)))
    bare.say(frame(DATA, 0, 1, message(b"later") * 2) + frame(DATA, 0, 3, message(b"go")))
    bare.say(frame(DATA, 0, 5, message(b"x" * 100)[:9]) + frame(DATA, END_STREAM, 7, b""))
    bare.lost()
    assert {call.status for call in bare.calls.calls} == {Status.CANCELLED, Status.OK}
    assert (bare.budget.held, bare.streams.open, reset_codes(bare.say(b""))) == (0, {}, {})
