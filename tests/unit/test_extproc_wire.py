"""Messages taken apart and put together by hand, beside protobuf's own work."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc import replies, wire
from epp.extproc.metadata import Late
from epp.headers import CONTROL, DESTINATION
from epp.rules import Forward
from tests.transcripts import every

ENVOYS = {message: str(script) for script in every() for message in script.from_envoy()}
SIZES = st.sampled_from([0, 1, 50, 127, 128, 129, 2_000, 16_383, 16_384, 20_000])


def fields(message: wire.Message) -> tuple[Any, ...]:
    return (
        message.kind, message.headers, message.body, message.end, dict(message.metadata), message.modes,
        message.observing,
    )  # fmt: skip


def test_every_recorded_message_is_read_as_protobuf_reads_it() -> None:
    different = [name for sent, name in ENVOYS.items() if fields(wire.read(sent)) != fields(wire._parsed(sent))]
    assert different == []


def test_recorded_headers_and_bodies_need_no_protobuf() -> None:
    kinds = {bytes([kind]) for kind in wire.KINDS}
    left = [name for sent, name in ENVOYS.items() if sent[:1] in kinds and wire._walked(sent) is None]
    assert {name.partition("-")[2] for name in left} == {"observe", "streamed-early"}


@given(
    st.dictionaries(st.text(max_size=140), st.binary(max_size=140), max_size=5), st.booleans(), st.booleans(),
    st.integers(0, 300),
)  # fmt: skip
def test_any_headers_are_read_as_protobuf_reads_them(
    headers: dict[str, bytes], end: bool, observing: bool, mode: int
) -> None:
    message = ProcessingRequest(observability_mode=observing)
    for name, value in headers.items():
        message.request_headers.headers.headers.add(key=name, raw_value=value)
    message.request_headers.end_of_stream = end
    message.protocol_config.request_body_mode = mode
    message.metadata_context.filter_metadata["a"]["b"] = 1.5
    sent = message.SerializeToString()
    assert fields(wire.read(sent)) == fields(wire._parsed(sent))


HEADER = st.tuples(st.sampled_from([":path", "accept", "date", "te", "x-id"]), st.sampled_from([b"a", b"b", b""]))


@given(st.lists(st.lists(HEADER, max_size=8), min_size=2, max_size=6))
def test_headers_that_recur_in_another_order_or_twice_are_read_as_protobuf_reads_them(
    messages: list[list[tuple[str, bytes]]],
) -> None:
    for headers in messages * 2:
        message = ProcessingRequest()
        for name, value in headers:
            message.request_headers.headers.headers.add(key=name, raw_value=value)
        sent = message.SerializeToString()
        read, expected = wire.read(sent), wire._parsed(sent)
        assert fields(read) == fields(expected)
        assert list(read.headers) == list(expected.headers)


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_read_or_refused_as_protobuf_does(sent: bytes) -> None:
    try:
        expected = fields(wire._parsed(sent))
    except DecodeError:
        return
    assert fields(wire.read(sent)) == expected


@given(st.data())
def test_a_message_cut_or_changed_anywhere_is_read_as_protobuf_reads_it_if_it_can(drawn: st.DataObject) -> None:
    sent = bytearray(drawn.draw(st.sampled_from([one for one in ENVOYS if len(one) < 400])))
    at = drawn.draw(st.integers(0, len(sent) - 1))
    sent[at] = drawn.draw(st.integers(0, 255))
    changed = bytes(sent[: drawn.draw(st.integers(0, len(sent)))])
    try:
        expected = fields(wire._parsed(changed))
    except DecodeError:
        return
    assert fields(wire.read(changed)) == expected


@pytest.mark.parametrize("sent", [b"\x1a\x02\x0a\x05", b"\x12\x03\x0a\x7f\x00", b"\x22\x02\x0a\x05abc"], ids=bytes.hex)
def test_a_part_that_is_longer_than_the_whole_is_left_to_protobuf(sent: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.read(sent)


@pytest.mark.parametrize("before", [b"\x2a", b"\x22\x0c\x0a", b"\x1a\x0c\x0a"], ids=["message", "body", "headers"])
def test_a_length_of_more_bytes_than_a_length_has_is_left_to_protobuf(before: bytes) -> None:
    """Its bits are added up in a time that grows by the square of their number: 400 KB took 13 seconds."""
    endless = before + b"\x80" * 10 + b"\x00"
    assert wire.piece(endless) is None
    with pytest.raises(DecodeError):
        wire.read(endless)


def test_a_header_is_read_however_often_it_comes() -> None:
    """To add each value to those before takes the square of their number: 40,000 took two seconds."""
    message = ProcessingRequest()
    for n in range(40_000):
        message.request_headers.headers.headers.add(key="a", raw_value=b"%d" % n)
    assert wire.read(message.SerializeToString()).headers == {"a": tuple(map(str, range(40_000)))}


def test_metadata_that_is_no_metadata_is_as_if_it_were_not_there() -> None:
    assert dict(Late(b"\xff\xff")) == {}


@pytest.mark.parametrize("end", [True, False])
@given(size=SIZES)
def test_a_piece_sent_on_in_its_own_bytes_is_the_answer_protobuf_would_make(size: int, end: bool) -> None:
    message = ProcessingRequest()
    message.response_body.body, message.response_body.end_of_stream = b"x" * size, end
    message.metadata_context.filter_metadata["envoy.lb"]["a"] = "b"
    sent = message.SerializeToString()
    piece = wire.piece(sent)
    assert piece is not None
    assert piece[1:] == (b"x" * size, end)
    wrapped = replies.wrapping("response_body", len(piece[0])) + piece[0]
    answer = ProcessingResponse()
    streamed = answer.response_body.response.body_mutation.streamed_response
    streamed.SetInParent()
    streamed.body, streamed.end_of_stream = b"x" * size, end
    assert wrapped == answer.SerializeToString() == replies._piece("response_body", b"x" * size, end)


def test_only_a_piece_of_a_response_is_taken_for_one() -> None:
    pieces = [sent for sent in ENVOYS if wire.piece(sent) is not None]
    assert pieces
    assert all(wire._parsed(sent).kind == "response_body" for sent in pieces)


def expected_routing(response: Any, forward: Forward, length: int) -> None:
    """What a CommonResponse holds that sends a request on."""
    named = {DESTINATION: forward.destination, "Content-Length": str(length), **forward.set_headers}
    for name, value in named.items():
        if name != "Content-Length" or length:
            response.header_mutation.set_headers.add().header.MergeFrom(
                replies.HeaderValueOption.FromString(replies._header(name, value)).header
            )
    response.header_mutation.remove_headers.extend(CONTROL)
    response.clear_route_cache = True


@given(st.dictionaries(st.text(min_size=1, max_size=200), st.text(max_size=200), max_size=3), SIZES)
def test_the_routing_is_what_protobuf_would_make_of_it(headers: dict[str, str], length: int) -> None:
    headers.pop(DESTINATION, None)
    headers.pop("Content-Length", None)
    forward = Forward("10.0.0.1:8000", {name: value for name, value in headers.items() if name.isprintable()})
    answer = ProcessingResponse()
    expected_routing(answer.request_headers.response, forward, length)
    answer.dynamic_metadata.fields["envoy.lb"].struct_value[DESTINATION] = "10.0.0.1:8000"
    assert replies.routed_headers(forward, length) == answer.SerializeToString()


def test_a_buffered_body_goes_back_with_its_routing_as_protobuf_would_write_it() -> None:
    forward = Forward("10.0.0.1:8000", body=b"x" * 300, metadata={"mine": {"a": 1.0}})
    answer = ProcessingResponse()
    expected_routing(answer.request_body.response, forward, 300)
    answer.request_body.response.body_mutation.body = b"x" * 300
    answer.dynamic_metadata.fields["envoy.lb"].struct_value[DESTINATION] = "10.0.0.1:8000"
    answer.dynamic_metadata.fields["mine"].struct_value["a"] = 1.0
    assert ProcessingResponse.FromString(replies.routed_body(forward, 300)) == answer


def test_the_response_headers_answer_sets_removes_and_tells() -> None:
    [sent] = replies.with_metadata([replies.response_headers({"a": "é\n"}, ("b", "c"))], {"n": {"k": "v"}})
    answer = ProcessingResponse.FromString(sent)
    mutation = answer.response_headers.response.header_mutation
    set_headers = [(o.header.key, o.header.raw_value) for o in mutation.set_headers]
    assert set_headers == [("x-went-into-resp-headers", b"true"), ("a", "é ".encode())]
    assert list(mutation.remove_headers) == ["b", "c"]
    assert answer.dynamic_metadata.fields["n"].struct_value["k"] == "v"
