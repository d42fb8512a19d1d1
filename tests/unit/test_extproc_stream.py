"""The state machine against transcripts recorded from Envoy, and the few shapes Envoy could not be made to produce."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from epp.extproc import replies
from epp.extproc.events import End, Event, Head, Pick, Piece, State
from epp.extproc.faults import ProtocolError
from epp.extproc.held import HeldBytes
from epp.extproc.stream import Stream
from epp.extproc.wire import read
from epp.headers import CONTROL, DESTINATION
from epp.rules import Forward
from epp.types import Refused

from .kit import request_body, request_headers

TRANSCRIPTS = sorted((Path(__file__).parent.parent / "transcripts").glob("*.json"))
FORWARD = "10.0.0.1:8000"
SCRIPTED = {"immediate", "early"}
"""Cases in which the recording side did something a pick does not do."""
EXPECTED = {
    State.START: {"request_headers", "response_headers"},
    State.BODY: {"request_body", "request_trailers", "response_headers"},
    State.PICKING: {"request_body", "request_trailers", "response_headers"},
    State.FORWARDED: {"request_body", "request_trailers", "response_headers"},
    State.RESPONSE: {
        "request_body", "request_trailers", "response_headers", "response_body", "response_trailers",
    },
}  # fmt: skip
"""The messages each state expects; the others ignore all of them."""


def held(limit: int = 1 << 30) -> HeldBytes:
    return HeldBytes(body_limit=limit, total_limit=limit)


def told(stream: Stream, message: ProcessingRequest) -> tuple[Event, list[bytes]]:
    return stream.receive(read(message.SerializeToString()))


def parsed(answers: list[bytes]) -> list[ProcessingResponse]:
    return [ProcessingResponse.FromString(wire) for wire in answers]


def drive(stream: Stream, message: ProcessingRequest) -> list[ProcessingResponse]:
    """What a transport sends after `message`, with an endpoint always picked and responses passed on."""
    event, answers = told(stream, message)
    match event:
        case Pick(bodiless=bodiless):
            answers += stream.forwarded(Forward(FORWARD, bodiless=bodiless))
        case Head():
            answers.append(replies.response_headers({}, ()))
        case Piece(body=body, end=end):
            answers += stream.piece_seen(body, body, end)
        case End():
            answers += stream.ended(b"")
    return parsed(answers)


def recorded(path: Path) -> list[tuple[str, bytes]]:
    """(by whom, wire bytes) of each message of a transcript."""
    entries = json.loads(path.read_text())["messages"]
    return [(e["by"], _wire(e)) for e in entries]


def _wire(entry: dict[str, str]) -> bytes:
    return base64.b64decode(entry["b64"]) if "b64" in entry else zlib.decompress(base64.b64decode(entry["zlib"]))


def kinds(answers: list[ProcessingResponse]) -> list[str]:
    """Names of the answers; the pieces of one body count once, with `!` if the last one ends it."""
    names: list[str] = []
    for answer in answers:
        name = str(answer.WhichOneof("response"))
        if names and name.endswith("_body") and names[-1] == name:
            names.pop()
        if name.endswith("_body"):
            name += "!" * getattr(answer, name).response.body_mutation.streamed_response.end_of_stream
        names.append(name)
    return names


def envoys(path: Path) -> list[ProcessingRequest]:
    return [ProcessingRequest.FromString(wire) for by, wire in recorded(path) if by == "envoy"]


def pickers(path: Path) -> list[ProcessingResponse]:
    return [ProcessingResponse.FromString(wire) for by, wire in recorded(path) if by == "picker"]


def case(name: str) -> Path:
    return next(path for path in TRANSCRIPTS if path.stem == name)


@pytest.mark.parametrize("path", [p for p in TRANSCRIPTS if p.stem[7:] not in SCRIPTED], ids=lambda path: path.stem)
def test_a_recorded_stream_is_answered_in_the_order_envoy_accepted(path: Path) -> None:
    stream = Stream(held())
    answers = [answer for message in envoys(path) for answer in drive(stream, message)]
    assert kinds(answers) == kinds(pickers(path))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_recorded_stream_cut_after_any_message_gives_every_byte_back(path: Path) -> None:
    messages = envoys(path)
    for cut in range(len(messages)):
        budget = held()
        stream = Stream(budget)
        for message in messages[:cut]:
            drive(stream, message)
        stream.close()
        assert budget.held == 0


@pytest.mark.parametrize("name", ["1.40.0-post-3mb", "1.36.2-post-3mb"])
def test_a_long_body_goes_back_whole_in_pieces_no_gateway_refuses(name: str) -> None:
    stream = Stream(held())
    messages = envoys(case(name))
    answers = [answer for message in messages for answer in drive(stream, message)]
    pieces = [a.request_body.response.body_mutation.streamed_response for a in answers if a.HasField("request_body")]
    assert b"".join(p.body for p in pieces) == b"".join(m.request_body.body for m in messages)
    assert max(len(p.body) for p in pieces) <= 62_000
    assert [p.end_of_stream for p in pieces] == [False] * (len(pieces) - 1) + [True]


def test_the_routing_removes_what_a_client_may_not_set_and_names_the_endpoint_twice() -> None:
    answer = drive_all("1.40.0-post")[0]
    mutation = answer.request_headers.response.header_mutation
    assert {o.header.key: o.header.raw_value for o in mutation.set_headers}[DESTINATION] == FORWARD.encode()
    assert set(mutation.remove_headers) == set(CONTROL)
    lb = answer.dynamic_metadata.fields["envoy.lb"].struct_value
    assert lb.fields[DESTINATION].string_value == FORWARD


def test_a_bodiless_request_is_routed_with_the_same_removals() -> None:
    answer = drive_all("1.40.0-get")[0]
    assert set(answer.request_headers.response.header_mutation.remove_headers) == set(CONTROL)


def test_buffered_bodies_carry_the_routing_in_their_own_answer() -> None:
    headers, body = drive_all("1.40.0-buffered")[:2]
    assert not headers.request_headers.response.HasField("header_mutation")
    set_headers = body.request_body.response.header_mutation.set_headers
    assert DESTINATION in {option.header.key for option in set_headers}


def test_a_buffered_body_that_is_changed_announces_its_length() -> None:
    stream = Stream(held())
    for message in envoys(case("1.40.0-buffered")):
        event, _ = told(stream, message)
        if isinstance(event, Pick):
            [answer] = parsed(stream.forwarded(Forward(FORWARD, body=b'{"model":"other"}')))
            break
    response = answer.request_body.response
    assert response.body_mutation.body == b'{"model":"other"}'
    assert {o.header.key: o.header.raw_value for o in response.header_mutation.set_headers}["Content-Length"] == b"17"


def test_a_truncated_body_is_not_read_and_its_length_not_announced() -> None:
    stream = Stream(held())
    for message in envoys(case("1.40.0-buffered-partial")):
        event, _ = told(stream, message)
        if isinstance(event, Pick):
            assert event.body is None
            [answer] = parsed(stream.forwarded(Forward(FORWARD)))
            break
    set_headers = answer.request_body.response.header_mutation.set_headers
    assert [option.header.key for option in set_headers] == [DESTINATION]


def test_the_end_of_a_body_that_comes_twice_is_answered_once() -> None:
    stream = Stream(held())
    messages = envoys(case("1.40.0-post"))
    for message in messages[:3]:
        drive(stream, message)
    assert drive(stream, messages[2]) == []


@pytest.mark.parametrize("sizes", [[1] * 3_000, [2, 2_000, 3, 4, 1_024, 5, 1_023, 6]], ids=["tiny", "mixed"])
def test_small_pieces_of_a_body_are_held_as_one(sizes: list[int]) -> None:
    """An object for each of two bytes would take 28 times what is counted as held."""
    budget = held()
    stream = Stream(budget)
    told(stream, request_headers())
    sent = [bytes([at % 251]) * size for at, size in enumerate(sizes)]
    for piece in sent:
        told(stream, request_body(piece, end=False))
    assert (len(stream._body) <= 6, budget.held) == (True, sum(sizes))
    event, _ = told(stream, request_body(b""))
    assert isinstance(event, Pick)
    assert event.body == b"".join(sent)


def test_observability_mode_is_never_answered() -> None:
    assert drive_all("1.40.0-observe") == []


def test_a_subset_hint_reaches_the_pick_from_either_message() -> None:
    hint = {"x-gateway-destination-endpoint-subset": ["127.0.0.1:8000", "10.0.0.7"]}
    stream = Stream(held())
    events = [told(stream, message)[0] for message in envoys(case("1.40.0-subset"))[:3]]
    assert isinstance(events[-1], Pick)
    assert events[-1].metadata["envoy.lb.subset_hint"] == hint


def test_a_repeated_header_keeps_all_its_values() -> None:
    stream = Stream(held())
    events = [told(stream, message)[0] for message in envoys(case("1.40.0-repeated-header"))[:3]]
    assert isinstance(events[-1], Pick)
    assert any(len(values) == 2 for values in events[-1].headers.values())


def test_a_body_over_the_limit_is_refused_and_freed() -> None:
    budget = held(limit=100_000)
    stream = Stream(budget)
    head, *pieces = envoys(case("1.40.0-post-3mb"))
    drive(stream, head)
    with pytest.raises(Refused, match="--max-body-bytes") as refusal:
        [drive(stream, piece) for piece in pieces]
    [answer] = parsed(stream.refused(refusal.value))
    assert answer.immediate_response.status.code == 413
    assert budget.held == 0
    assert drive(stream, pieces[0]) == []


def test_bodies_together_over_the_limit_refuse_the_newcomer_only() -> None:
    budget = HeldBytes(body_limit=1 << 20, total_limit=100)
    budget.take(90, 0)
    with pytest.raises(Refused, match="--max-held-bytes") as refusal:
        budget.take(11, 0)
    assert (refusal.value.status, budget.held) == (503, 90)


def test_a_refusal_names_its_reason_in_the_header() -> None:
    stream = Stream(held())
    [answer] = parsed(stream.refused(Refused(503, "nobody there", "rejected-no-endpoints")))
    immediate = answer.immediate_response
    assert immediate.body == b"inference error: ServiceUnavailable - nobody there"
    assert immediate.headers.set_headers[0].header.raw_value == b"rejected-no-endpoints"


@pytest.mark.parametrize("state", State)
def test_a_message_is_taken_in_the_states_that_expect_it_and_a_protocol_error_in_all_others(state: State) -> None:
    messages = {m.WhichOneof("request"): m for path in TRANSCRIPTS for m in envoys(path)}
    refused = []
    for message in messages.values():
        stream = Stream(held())
        stream.state = state
        try:
            told(stream, message)
        except ProtocolError as error:
            refused.append(str(error))
    unexpected = set(messages) - EXPECTED.get(state, set(messages))
    assert set(refused) == {f"{kind} is not expected in state {state.value}" for kind in unexpected}


def test_an_unknown_body_mode_is_named() -> None:
    message = ProcessingRequest()
    message.request_headers.end_of_stream = False
    message.protocol_config.request_body_mode = 5
    with pytest.raises(ProtocolError, match="body mode 5"):
        told(Stream(held()), message)


def drive_all(name: str) -> list[ProcessingResponse]:
    stream = Stream(held())
    return [answer for message in envoys(case(name)) for answer in drive(stream, message)]


@pytest.mark.parametrize(("name", "fixed"), [("1.40.0-buffered", True), ("1.40.0-streamed", False)])
def test_a_changed_response_outside_of_full_duplex_announces_its_length_where_it_has_one(
    name: str, fixed: bool
) -> None:
    stream = Stream(held())
    for message in envoys(case(name)):
        event, _ = told(stream, message)
        match event:
            case Pick(bodiless=bodiless):
                stream.forwarded(Forward(FORWARD, bodiless=bodiless))
            case Piece(body=body, end=end):
                [answer] = parsed(stream.piece_seen(body, b"changed", end))
                break
    response = answer.response_body.response
    lengths = [o.header.raw_value for o in response.header_mutation.set_headers if o.header.key == "content-length"]
    assert (response.body_mutation.body, lengths) == (b"changed", [b"7"] if fixed else [])
