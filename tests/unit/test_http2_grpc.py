"""gRPC on the HTTP/2 face, with the package h2 as client: messages, statuses, deadlines."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_codes import Status
from epp.extproc.http2_wire import percent_encoded

from .http2_kit import REQUEST, Client, message


def test_each_message_is_answered_and_the_end_is_ok() -> None:
    client = Client()
    number = client.open()
    client.send(number, b"one", b"", b"three")
    assert client.got(number) == [b"one", b"", b"three"]
    client.send(number, end=True)
    assert client.ending(number) == {"grpc-status": "0"}
    assert [call.status for call in client.calls.calls] == [Status.OK]
    assert client.calls.calls[0].sent_count == 3


def test_a_stream_without_a_message_ends_well() -> None:
    client = Client()
    assert client.status(client.open(end=True)) == 0


def test_the_replies_of_one_turn_and_the_trailers_leave_together() -> None:
    client = Client()
    number = client.h2.get_next_available_stream_id()
    client.h2.send_headers(number, REQUEST)
    client.h2.send_data(number, message(b"one") + message(b"two"), end_stream=True)
    client.connection.receive(client.h2.data_to_send())
    client.events += client.h2.receive_data(b"".join(client.streams.out))
    assert (client.got(number), client.status(number)) == ([b"one", b"two"], 0)


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_messages_may_be_cut_anywhere(wires: list[bytes], cuts: list[int]) -> None:
    client = Client()
    number = client.open()
    wire = b"".join(map(message, wires))
    for cut in cuts:
        client.send_raw(number, wire[:cut])
        wire = wire[cut:]
    client.send_raw(number, wire, end=True)
    assert (client.got(number), client.status(number), client.budget.held) == (wires, 0, 0)


def test_a_message_of_megabytes_goes_both_ways() -> None:
    client = Client(settings=None)
    wire = bytes(range(256)) * 20_000
    number = client.open()
    client.h2.increment_flow_control_window(1 << 24)
    client.h2.increment_flow_control_window(1 << 24, number)
    client.send(number, wire, end=True)
    assert client.got(number) == [wire]
    assert client.status(number) == 0


def test_a_message_that_is_too_long_is_refused_by_its_prefix() -> None:
    client = Client(recv_bytes=100)
    number = client.open()
    client.send_raw(number, message(b"x" * 101)[:5])
    assert client.status(number) == Status.RESOURCE_EXHAUSTED
    assert (
        client.ending(number)["grpc-message"] == "a message of 101 bytes is over 100 bytes (--grpc-max-recv-msg-size)"
    )
    assert client.calls.calls[0].status is Status.RESOURCE_EXHAUSTED


def test_an_answer_that_is_too_long_is_refused() -> None:
    client = Client(lambda wire: [wire * 3], send_bytes=100)
    number = client.open()
    client.send(number, b"x" * 33)
    assert client.got(number) == [b"x" * 99]
    client.send(number, b"x" * 34)
    assert client.status(number) == Status.RESOURCE_EXHAUSTED


def test_unfinished_messages_have_a_limit_together() -> None:
    client = Client(waiting_bytes=1_000)
    first, second = client.open(), client.open()
    client.send_raw(first, message(b"x" * 700)[:605])
    client.send_raw(second, message(b"x" * 700)[:605])
    assert client.status(second) == Status.RESOURCE_EXHAUSTED
    client.send_raw(first, b"x" * 100, end=True)
    assert client.got(first) == [b"x" * 700]
    assert client.budget.held == 0


def test_a_compressed_message_is_refused() -> None:
    client = Client()
    number = client.open(("grpc-encoding", "gzip"))
    client.send_raw(number, message(b"one", compressed=1))
    assert client.status(number) == Status.UNIMPLEMENTED
    assert "identity" in client.ending(number)["grpc-message"]


def test_an_unknown_method_is_unimplemented() -> None:
    client = Client()
    number = client.open(path="/tests.Echo/Nothing", end=True)
    assert client.ending(number) == {
        ":status": "200", "content-type": "application/grpc", "grpc-status": "12",
        "grpc-message": "there is no method /tests.Echo/Nothing",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "content_type", "status"), [("GET", "application/grpc", "405"), ("POST", "text/html", "415")]
)
def test_what_is_no_grpc_call_gets_an_http_status(method: str, content_type: str, status: str) -> None:
    client = Client()
    pseudo = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "x")]
    client.h2.send_headers(1, [*pseudo, ("content-type", content_type)], end_stream=True)
    client.exchange()
    assert client.ending(1)[":status"] == status


def test_a_failure_is_told_with_its_message() -> None:
    client = Client()
    number = client.open()
    client.send(number, b"fail")
    assert client.status(number) == Status.UNAVAILABLE
    assert client.ending(number)["grpc-message"] == "as told: 100 %25 '%C3%BC'%0A"


def test_a_bug_ends_its_stream_alone(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    other, number = client.open(), client.open()
    client.send(number, b"crash")
    assert client.status(number) == Status.INTERNAL
    assert "internal error" in caplog.text
    client.send(other, b"fine", end=True)
    assert client.status(other) == 0


def test_a_call_that_is_over_ends_the_stream_before_the_client_does() -> None:
    client = Client()
    number = client.open()
    client.send(number, b"bye")
    assert (client.got(number), client.status(number)) == ([b"bye"], 0)
    assert client.resets() == {}


def test_a_client_that_goes_on_after_the_end_is_told_that_nobody_listens() -> None:
    client = Client()
    number = client.open()
    client.send(number, b"bye")
    client.send(number, b"more")
    assert client.resets() == {number: ErrorCodes.NO_ERROR}
    assert client.calls.got == [b"bye"]


def test_a_stream_that_ends_within_a_message_is_an_error() -> None:
    client = Client()
    number = client.open()
    client.send_raw(number, message(b"one")[:6], end=True)
    assert client.status(number) == Status.INTERNAL


def test_a_reset_cancels_the_call() -> None:
    client = Client()
    number = client.open()
    client.h2.reset_stream(number)
    client.exchange()
    assert client.calls.calls[0].status is Status.CANCELLED


@pytest.mark.parametrize("told", ["1S", "1000m", "1000000u"])
def test_a_call_ends_at_its_deadline(told: str) -> None:
    client = Client()
    number = client.open(("grpc-timeout", told))
    assert client.streams.next_deadline == client.clock.now + 1
    client.streams.expire(client.clock.now + 0.9)
    assert client.calls.open == 1
    client.streams.expire(client.clock.now + 1)
    client.exchange()
    assert client.status(number) == Status.DEADLINE_EXCEEDED
    assert client.streams.next_deadline == float("inf")


def test_a_timeout_that_cannot_be_read_is_refused() -> None:
    client = Client()
    assert client.status(client.open(("grpc-timeout", "soon"), end=True)) == Status.INTERNAL


def test_messages_wait_while_a_reply_is_decided() -> None:
    client = Client(lambda wire: None if wire == b"later" else [wire])
    number = client.open()
    client.send(number, b"later", b"next", end=True)
    assert client.calls.got == [b"later"]
    assert client.budget.held > 0
    client.calls.later[0].done([b"decided"])
    client.exchange()
    assert client.got(number) == [b"decided", b"next"]
    assert (client.status(number), client.budget.held) == (0, 0)


def test_a_decision_that_fails_ends_its_stream() -> None:
    client = Client(lambda wire: None)
    number = client.open()
    client.send(number, b"later")
    client.calls.later[0].done(ZeroDivisionError())
    client.exchange()
    assert client.status(number) == Status.INTERNAL


def test_a_reset_gives_up_a_decision_and_then_closes_the_call() -> None:
    client = Client(lambda wire: None)
    number = client.open()
    client.send(number, b"later")
    client.h2.reset_stream(number)
    client.exchange()
    assert (client.calls.later[0].cancelled, client.calls.open) == (True, 1)
    client.calls.later[0].done(RuntimeError("cancelled"))
    assert client.calls.calls[0].status is Status.CANCELLED


@pytest.mark.parametrize("extra", ["12", "0"])
def test_a_content_length_that_is_not_true_resets_the_stream(extra: str) -> None:
    client = Client()
    number = client.open()
    client.h2.reset_stream(number)
    liar = Client()
    liar.h2.config.validate_outbound_headers = False
    one = liar.open(("content-length", extra))
    liar.send(one, b"one", end=True)
    assert liar.resets() == {one: ErrorCodes.PROTOCOL_ERROR}


def test_a_message_for_people_is_cut_at_a_thousand_bytes() -> None:
    assert len(percent_encoded("ü" * 5_000)) <= 1_000
    assert percent_encoded("ü" * 5_000).endswith((b"%C3", b"%BC"))


def test_ticks_leave_a_healthy_connection_alone() -> None:
    client = Client()
    number = client.open()
    for _ in range(3):
        client.clock.now += 50
        upkeep.tick(client.connection, client.clock.now)
        client.exchange()
    client.send(number, b"still there", end=True)
    assert client.status(number) == 0
