"""Flow control: what we grant, what we are granted, and what happens where either is little."""

from __future__ import annotations

import struct

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from epp.extproc.http2_codes import Error, Status
from epp.extproc.http2_connection import CONNECTION_WINDOW
from epp.extproc.http2_streams import STREAM_WINDOW, TURN_BYTES
from epp.extproc.http2_wire import frame

from .http2_kit import HELLO, Bare, Client, frames, goaway_code, message, reset_codes
from .test_http2_connection import DATA, END_STREAM, OPEN, RST, WINDOW, four, setting

MI = 1 << 20


def widths(found: list[tuple[int, int, int, bytes]], stream: int) -> list[int]:
    """Sizes of the DATA frames of a stream."""
    return [len(payload) for kind, _, number, payload in found if (kind, number) == (DATA, stream)]


def updates(found: list[tuple[int, int, int, bytes]], stream: int) -> int:
    return sum(struct.unpack(">L", p)[0] for kind, _, number, p in found if (kind, number) == (WINDOW, stream))


def upload(bare: Bare, wire: bytes, stream: int = 1) -> list[tuple[int, int, int, bytes]]:
    found = []
    for at in range(0, len(wire), 16_384):
        found += bare.say(frame(DATA, 0, stream, wire[at : at + 16_384]))
    return found


def test_windows_are_granted_as_a_long_body_arrives() -> None:
    bare = Bare(lambda _: [])
    bare.say(HELLO + OPEN)
    found = upload(bare, message(b"x" * 10 * MI))
    assert 10 * MI - STREAM_WINDOW // 2 <= updates(found, 1) <= 10 * MI + 5
    assert 10 * MI - CONNECTION_WINDOW // 4 <= updates(found, 0) <= 10 * MI + 5
    assert len(bare.calls.got[0]) == 10 * MI


def test_a_short_body_needs_no_update() -> None:
    bare = Bare(lambda _: [])
    bare.say(HELLO + OPEN)
    assert upload(bare, message(b"x" * 400_000)) == []


def test_a_client_that_sends_more_than_it_may_loses_the_stream() -> None:
    bare = Bare(lambda _: None)
    bare.say(HELLO + OPEN + frame(DATA, 0, 1, message(b"later")))
    found = upload(bare, message(b"x" * 1_000) * 1_200)
    assert reset_codes(found) == {1: Error.FLOW_CONTROL_ERROR}
    bare.lost()
    assert (bare.budget.held, bare.calls.open) == (0, 0)


def test_messages_that_wait_are_granted_no_more_until_they_are_taken() -> None:
    bare = Bare(lambda wire: None if wire == b"later" else [])
    bare.say(HELLO + OPEN + frame(DATA, 0, 1, message(b"later")))
    assert upload(bare, message(b"x" * 16_379) * 60) == []
    bare.calls.later[0].done([])
    assert updates(frames(bare.written()), 1) == 60 * 16_384 + 10


def test_a_reply_goes_out_as_the_windows_open() -> None:
    bare = Bare(lambda _: [b"y" * 100_000])
    found = bare.say(HELLO + OPEN + frame(DATA, END_STREAM, 1, message(b"go")))
    assert sum(widths(found, 1)) == 65_535
    assert bare.calls.calls[0].sent_count == 0
    assert sum(widths(bare.say(frame(WINDOW, 0, 1, four(10_000))), 1)) == 0
    assert sum(widths(bare.say(frame(WINDOW, 0, 0, four(6_000))), 1)) == 6_000
    last = bare.say(frame(WINDOW, 0, 0, four(1 << 20)) + frame(WINDOW, 0, 1, four(1 << 20)))
    assert (sum(widths(last, 1)), last[-1][:3]) == (100_005 - 71_535, (1, 5, 1))
    assert bare.calls.calls[0].status is Status.OK


def test_frames_are_as_long_as_the_client_takes_them() -> None:
    bare = Bare(lambda _: [b"y" * 40_000])
    assert widths(bare.say(HELLO + OPEN + frame(DATA, 0, 1, message(b"go"))), 1) == [16_384, 16_384, 7_237]
    large = Bare(lambda _: [b"y" * 40_000])
    assert widths(large.say(HELLO + setting(5, 1 << 23) + OPEN + frame(DATA, 0, 1, message(b"go"))), 1) == [40_005]


def test_a_window_may_become_negative_and_recover() -> None:
    bare = Bare(lambda _: [b"y" * 40_000])
    bare.say(HELLO + OPEN + frame(DATA, 0, 1, message(b"go")))
    assert widths(bare.say(setting(4, 10_000) + frame(DATA, 0, 1, message(b"go"))), 1) == []
    assert bare.streams.open[1].window == 10_000 - 40_005
    assert widths(bare.say(frame(WINDOW, 0, 1, four(30_005))), 1) == []
    assert widths(bare.say(frame(WINDOW, 0, 1, four(1_000))), 1) == [1_000]
    assert sum(widths(bare.say(setting(4, 60_000)), 1)) == 65_535 - 40_005 - 1_000


def test_streams_share_the_connections_window_in_turn() -> None:
    client = Client(lambda _: [b"y" * 30_000])
    client.h2.increment_flow_control_window(1 << 20, None)
    numbers = [client.open() for _ in range(3)]
    bare = Bare(lambda _: [b"y" * 60_000])
    bare.say(HELLO + OPEN + OPEN.replace(b"\0\0\0\1", b"\0\0\0\3", 1) + frame(DATA, 0, 1, message(b"go")))
    bare.say(frame(DATA, 0, 3, message(b"go")))
    seen = [len(widths(bare.say(frame(WINDOW, 0, 0, four(1_000))), stream)) for stream in (3, 3, 3)]
    assert seen == [1, 1, 1]
    for number in numbers:
        client.send(number, b"go", end=True)
    assert [client.status(number) for number in numbers] == [0, 0, 0]


@pytest.mark.parametrize("window", [0, 1, 3])
def test_a_tiny_window_holds_one_stream_and_no_other(window: int) -> None:
    client = Client(settings={SettingCodes.INITIAL_WINDOW_SIZE: window})
    slow, other = client.open(), client.open()
    client.send(slow, b"one", b"two", b"three")
    client.h2.increment_flow_control_window(1_000, other)
    client.send(other, b"fast", end=True)
    assert client.got(other) == [b"fast"]
    assert client.calls.calls[0].got == [b"one"]
    client.h2.increment_flow_control_window(1_000, slow)
    client.exchange()
    assert client.got(slow) == [b"one", b"two", b"three"]


def test_a_full_socket_holds_data_back_and_nothing_else() -> None:
    bare = Bare()
    bare.say(HELLO + OPEN)
    bare.streams.pause()
    found = bare.say(frame(DATA, 0, 1, message(b"one") + message(b"two")) + frame(6, 0, 0, bytes(8)))
    assert ([kind for kind, *_ in found], bare.calls.got) == ([1, 6], [b"one"])
    bare.say(frame(WINDOW, 0, 0, four(1_000)))
    bare.streams.resume()
    assert len(widths(frames(bare.written()), 1)) == 2
    assert bare.calls.got == [b"one", b"two"]


def test_no_more_than_a_turns_worth_leaves_at_once() -> None:
    bare = Bare(lambda _: [b"y" * 8 * MI])
    bare.say(HELLO + setting(4, 1 << 30) + frame(WINDOW, 0, 0, four(1 << 30)) + OPEN)
    bare.connection.receive(frame(DATA, 0, 1, message(b"go")))
    assert sum(map(len, bare.streams.out)) < TURN_BYTES + 10_000
    assert sum(widths(frames(bare.written()), 1)) == 8 * MI + 5


def test_a_call_that_fails_with_data_waiting_is_reset() -> None:
    client = Client(lambda _: [b"y" * 100_000])
    number = client.open(("grpc-timeout", "1S"))
    client.send(number, b"go")
    client.streams.expire(client.clock.now + 1)
    client.exchange()
    assert client.resets() == {number: ErrorCodes.CANCEL}
    assert client.calls.calls[0].status is Status.DEADLINE_EXCEEDED


def test_a_stream_that_is_gone_leaves_the_queue_for_room() -> None:
    bare = Bare(lambda _: [b"y" * 100_000])
    bare.say(HELLO + setting(4, 1 << 20) + OPEN + frame(DATA, 0, 1, message(b"go")))
    assert list(bare.streams.blocked) == [1]
    bare.say(frame(RST, 0, 1, four(8)))
    assert bare.streams.blocked == {}
    assert goaway_code(bare.say(frame(WINDOW, 0, 0, four(1_000)))) is None
