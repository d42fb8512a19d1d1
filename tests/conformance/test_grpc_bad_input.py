"""What no gateway should send: it costs the stream that sent it, nothing else, and is told without a traceback."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable

import grpc
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from tests.e2e.processes import Picker, settles

from . import gateway as made
from .gateway import CHAT, Gateway, head, kinds, piece, refusal, streamed

MI = 1 << 20
ODD = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def unharmed(gateway: Gateway, chooser: Picker) -> object:
    """After each test nothing is held or under way, a good request is served and no traceback was written."""
    read = len(chooser.child.log.read_text())
    yield
    assert kinds(gateway.ask()) == ["request_headers", "request_body"]
    for name in ("llm_d_epp_extproc_streams_inflight", "llm_d_epp_request_running", "llm_d_epp_held_bytes"):
        assert settles(0, lambda name=name: chooser.metric(name)) == 0, name
    assert "Traceback" not in chooser.child.log.read_text()[read:]


def with_number(message: ProcessingRequest, number: float) -> ProcessingRequest:
    message.metadata_context.filter_metadata["other"].fields["n"].number_value = number
    return message


@pytest.mark.parametrize(
    "messages",
    [
        [b"\xff\xff\xff\xff"],
        [b""],
        [piece(CHAT, end=True)],
        [made.trailers()],
        [head(), head()],
        [head(), made.response_piece(b"x")],
        [head(), piece(CHAT, end=True), head()],
        [head(), piece(CHAT, end=True), made.response_piece(b"x")],
        [head(), piece(CHAT, end=True), b"\x00\x01\x02"],
        [head(mode=99)],
    ],
    ids=["garbage", "empty", "body-first", "trailers-first", "headers-twice", "response-body-in-request",
         "headers-after-end", "response-body-first", "garbage-later", "unknown-mode"],
)  # fmt: skip
def test_a_message_out_of_place_ends_its_stream(gateway: Gateway, messages: list[ProcessingRequest | bytes]) -> None:
    with gateway.stream() as stream:
        stream.send(*messages)
        assert stream.code() == "INVALID_ARGUMENT"


@pytest.mark.parametrize("number", ODD, ids=["nan", "infinity"])
def test_metadata_of_other_filters_may_hold_any_number(gateway: Gateway, number: float) -> None:
    answers = gateway.say(with_number(head(), number), with_number(piece(CHAT, end=True), number))
    assert kinds(answers) == ["request_headers", "request_body"]


@pytest.mark.parametrize("status", ["²", "2" * 5_000, "", "-1", "2e2"], ids=["superscript", "long", "no", "minus", "e"])
def test_a_status_that_is_no_number_passes(gateway: Gateway, status: str) -> None:
    answers = gateway.say(head(), piece(CHAT, end=True), made.response({":status": status}, end=True))
    assert kinds(answers)[-1] == "response_headers"


def test_a_body_over_the_limit_is_413_and_what_follows_is_not_kept(gateway: Gateway) -> None:
    answers = gateway.say(head(), *[piece(b" " * MI)] * 40, piece(end=True))
    assert refusal(answers)[0] == 413


def test_bodies_together_over_the_limit_are_503_until_one_ends(gateway: Gateway, chooser: Picker) -> None:
    several = [head(), *[piece(b" " * MI)] * 3, piece(end=True)]
    with gateway.stream() as first:
        first.send(head(), *[piece(b" " * MI)] * 31)
        assert settles(31 * MI, lambda: chooser.metric("llm_d_epp_held_bytes")) == 31 * MI
        assert refusal(gateway.say(*several))[0] == 503
    assert settles(0, lambda: chooser.metric("llm_d_epp_held_bytes")) == 0
    assert refusal(gateway.say(*several))[0] == 400


@pytest.mark.parametrize("said", range(7))
def test_a_gateway_may_vanish_at_any_point(gateway: Gateway, said: int) -> None:
    script = [
        head(), piece(CHAT[:5]), piece(CHAT[5:], end=True), made.response(made.SSE), made.response_piece(b"data: 1\n"),
        made.response_piece(b"data: [DONE]\n\n", end=True),
    ]  # fmt: skip
    with gateway.stream() as stream:
        stream.send(*script[:said])
        if said > 2:
            stream.answers(2)


def test_half_open_streams_hold_nothing_once_they_are_gone(gateway: Gateway, chooser: Picker) -> None:
    streams = [made.Stream(gateway.channel) for _ in range(200)]
    for stream in streams:
        stream.send(head(), piece(CHAT[:5]))
    assert settles(1_000, lambda: chooser.metric("llm_d_epp_held_bytes")) == 1_000
    for stream in streams:
        stream.close()


def test_a_reader_that_takes_its_time_gets_everything(gateway: Gateway) -> None:
    body = b'{"model":"tiny","prompt":"' + b"x" * 8 * MI + b'"}'
    with gateway.stream() as stream:
        stream.send(head(path="/v1/completions"), *[piece(body[at : at + MI]) for at in range(0, len(body), MI)])
        stream.send(piece(end=True))
        assert kinds([stream.answer()]) == ["request_headers"]
        assert kinds(gateway.ask()) == ["request_headers", "request_body"]
        assert b"".join(part for part, _ in streamed(stream.rest(), "request_body")) == body


def test_an_answer_over_the_message_limit_of_grpc_ends_its_stream(gateway: Gateway) -> None:
    with gateway.stream() as stream:
        stream.send(head(), piece(b" " * 40 * MI, end=True))
        assert stream.code() == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("limit", ["²", "1" * 4_500, "0", "-1", "1001"], ids=["superscript", "long", "0", "-1", "1001"])
def test_a_wrong_limit_is_400(chooser: Picker, limit: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="400"):
        chooser.get(f"/debug/decisions?limit={limit.replace('²', '%C2%B2')}")


@pytest.mark.parametrize("method", ["Process2", ""])
def test_an_unknown_method_is_unimplemented(gateway: Gateway, method: str) -> None:
    call: Callable[..., object] = gateway.channel.unary_unary(f"/envoy.service.ext_proc.v3.ExternalProcessor/{method}")
    with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
        call(b"", timeout=10)
