"""What docs/envoy-facts.md says, asked of both Envoys. No part of the picker runs here."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from google.protobuf.wrappers_pb2 import BoolValue

from tests import transcripts

from . import record
from .answers import Answer, Message, ends, immediate, kind, option, picked, plain, replaced, streamed
from .bootstrap import DESTINATION
from .client import http2_post, request
from .experiment import BODY, HANGS, POST, Scene, Seen, experiment
from .scripted import Picking, Script, Stream

GET = request("GET", "/v1/models")
NEW = b'{"model": "a-longer-name", "prompt": "Once upon a time"}'
CHUNKED = request("POST", "/v1/completions", "transfer-encoding: chunked")
CHUNKED_POST = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
Modes = dict[str, Any]  # fields of Setup
DUPLEX: Modes = {"request_body": "FULL_DUPLEX_STREAMED", "response_body": "FULL_DUPLEX_STREAMED"}
BUFFERED: Modes = {"request_body": "BUFFERED", "response_body": "BUFFERED"}
STREAMED: Modes = {"request_body": "STREAMED", "response_body": "STREAMED"}


def refusal() -> Answer:
    answer = immediate(429, "busy")
    answer.immediate_response.headers.set_headers.append(option("content-type", "application/json"))
    return answer


async def with_trailers(scene: Scene) -> int:
    seen = await http2_post(scene.port, "/v1/completions", BODY, trailers=[("x-checksum", "abc")])
    return int(seen["status"])


# -- what was recorded still holds


@pytest.mark.parametrize("case", sorted(name for name, case in record.CASES.items() if not case.chance))
def test_envoy_sends_the_messages_that_were_recorded(case: str, which: str) -> None:
    kept = asyncio.run(record.record(case, record.CASES[case], which))
    assert kept is not None
    recorded = list(transcripts.every(case))[0 if which == "oldest" else -1]
    said = [transcripts.decoded(message) for message in kept["messages"] if message["by"] == "envoy"]
    assert _kinds(said) == _kinds(recorded.from_envoy())


def _kinds(wires: list[bytes]) -> list[str]:
    """Without repeats: how a body is cut into pieces is chance."""
    names = [kind(Message.FromString(wire)) for wire in wires]
    return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


# -- full duplex: order and ends


@pytest.mark.parametrize("buffer_bytes", [32768, 1 << 20])
@pytest.mark.parametrize("size", [1, 32768, 65536, 1 << 20, 3_000_000])
def test_a_body_ends_once_and_arrives_whole(size: int, buffer_bytes: int, which: str) -> None:
    long = request("POST", "/v1/completions", body=b"x" * size)
    seen = experiment(which, Picking, long, buffer_bytes=buffer_bytes)
    bodies = [m.request_body for m in seen.stream.received() if m.HasField("request_body")]
    assert [piece.end_of_stream for piece in bodies] == [False] * (len(bodies) - 1) + [True]
    assert bodies[-1].body == b""
    assert len(seen.engine.bodies[0]) == size


def test_request_trailers_left_unanswered_hang_the_request(which: str) -> None:
    def script(engine: str) -> Script:
        only_body = [picked("request_headers", engine), streamed("request_body", BODY, False)]
        return Picking(engine, instead={"request_trailers": only_body})

    seen = experiment(which, script, client=with_trailers, timeout_s=0.7)
    assert seen.reply == HANGS
    assert len(seen.engine.heads) == 1


@pytest.mark.parametrize(
    ("order", "status"),
    [
        pytest.param(["headers", "body", "trailers"], 200, id="as due"),
        pytest.param(["headers", "body!", "trailers"], 200, id="an end before the trailers is forgiven"),
        pytest.param(["headers", "trailers", "body"], 503, id="a piece after them is not"),
        pytest.param(["headers", "trailers"], 200, id="no piece at all"),
    ],
)
def test_request_trailers_are_answered_after_the_pieces(order: list[str], status: int, which: str) -> None:
    def script(engine: str) -> Script:
        said = {
            "headers": picked("request_headers", engine),
            "body": streamed("request_body", BODY, False),
            "body!": streamed("request_body", BODY, True),
            "trailers": plain("request_trailers"),
        }
        return Picking(engine, instead={"request_trailers": [said[word] for word in order]})

    assert experiment(which, script, client=with_trailers).reply.status == status


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([streamed("request_body", BODY, True)], id="a piece before the headers' answer"),
        pytest.param([None, plain("request_body")], id="a body answer without a piece"),
        pytest.param([None, replaced("request_body", BODY)], id="a body mutation"),
        pytest.param([None, streamed("request_body", BODY, True), streamed("request_body", b"", True)], id="two ends"),
    ],
)
def test_a_spurious_answer_fails_the_request(answers: list[Answer | None], which: str) -> None:
    def script(engine: str) -> Script:
        said = [answer or picked("request_headers", engine) for answer in answers]
        return Picking(engine, instead={"request_body!": said})

    seen = experiment(which, script)
    assert (seen.reply.status, seen.counters["spurious_msgs_received"]) == (503, 1)


def test_a_piece_may_be_as_long_as_a_megabyte(which: str) -> None:
    def script(engine: str) -> Script:
        long = streamed("request_body", b"x" * 1_000_000, True)
        return Picking(engine, instead={"request_body!": [picked("request_headers", engine), long]})

    assert len(experiment(which, script).engine.bodies[0]) == 1_000_000


def test_a_request_whose_end_is_not_sent_back_hangs(which: str) -> None:
    def script(engine: str) -> Script:
        endless = streamed("request_body", BODY, False)
        return Picking(engine, instead={"request_body!": [picked("request_headers", engine), endless]})

    assert experiment(which, script, timeout_s=0.7).reply == HANGS


def test_a_second_end_in_the_response_is_ignored(which: str) -> None:
    twice = [streamed("response_body", b"", True)] * 2
    seen = experiment(which, lambda engine: Picking(engine, instead={"response_body!": twice}))
    assert (seen.reply.status, seen.counters["spurious_msgs_received"]) == (200, 0)


def test_a_response_piece_before_the_headers_answer_is_spurious(which: str) -> None:
    seen = experiment(which, lambda engine: Picking(engine, instead={"response_headers": []}))
    assert (seen.reply.status, seen.counters["spurious_msgs_received"]) == (503, 1)


def test_an_upgrade_held_for_its_body_hangs(which: str) -> None:
    upgrade = request("GET", "/ws", "upgrade: websocket", "connection: upgrade", close=False)
    assert experiment(which, Picking, upgrade, timeout_s=0.7).reply == HANGS


def test_no_content_length_is_sent_in_full_duplex(which: str) -> None:
    def script(engine: str) -> Script:
        headers = picked("request_headers", engine)
        headers.request_headers.response.header_mutation.set_headers.append(option("content-length", str(len(NEW))))
        return Picking(engine, instead={"request_body!": [headers, streamed("request_body", NEW, True)]})

    seen = experiment(which, script)
    assert (seen.engine.header("content-length"), seen.engine.bodies) == ([], [NEW])
    assert seen.reply.header("content-length") is None


# -- BUFFERED


def buffered(edit: Answer) -> dict[str, list[Answer]]:
    return {"request_body!": [edit]}


def test_a_buffered_body_answer_sets_and_removes_headers(which: str) -> None:
    def script(engine: str) -> Script:
        answer = picked("request_body", engine)
        mutation = answer.request_body.response.header_mutation
        mutation.remove_headers.extend(["x-gone", "x-ours"])
        mutation.set_headers.append(option("x-ours", "set"))
        return Picking(engine, instead={"request_body!": [answer]})

    sent = [f"{DESTINATION}: 127.0.0.1:1", "x-gone: 1", "x-ours: client"]
    seen = experiment(which, script, request("POST", "/v1/completions", *sent, body=BODY), **BUFFERED)
    found = [seen.engine.header(name) for name in (DESTINATION, "x-gone", "x-ours")]
    assert found == [[seen.engine.address], [], ["set"]]


@pytest.mark.parametrize(
    ("sent", "length", "status"),
    [
        pytest.param(POST, None, 503, id="content-length left as it was"),
        pytest.param(POST, len(NEW), 200, id="content-length set"),
        pytest.param(POST, 5, 503, id="content-length wrong"),
        pytest.param(CHUNKED_POST, None, 200, id="chunked"),
        pytest.param(CHUNKED_POST, len(NEW), 200, id="chunked, content-length set"),
    ],
)
def test_a_buffered_body_of_another_length_needs_its_content_length(
    sent: bytes, length: int | None, status: int, which: str
) -> None:
    def script(engine: str) -> Script:
        answer = picked("request_body", engine)
        answer.request_body.response.body_mutation.body = NEW
        if length is not None:
            headers = answer.request_body.response.header_mutation.set_headers
            headers.append(option("content-length", str(length)))
        return Picking(engine, instead={"request_body!": [answer]})

    seen = experiment(which, script, sent, **BUFFERED)
    assert seen.reply.status == status
    assert seen.engine.bodies == ([NEW] if status == 200 else [])


@pytest.mark.parametrize(("length", "status"), [(None, 503), (7, 200)])
def test_so_does_a_buffered_response(length: int | None, status: int, which: str) -> None:
    answer = replaced("response_body", b"changed")
    if length is not None:
        answer.response_body.response.header_mutation.set_headers.append(option("content-length", str(length)))
    seen = experiment(which, lambda engine: Picking(engine, instead={"response_body!": [answer]}), **BUFFERED)
    assert seen.reply.status == status


# -- STREAMED


class Late:
    """Holds the headers' answer until nothing more comes, then answers all."""

    def __init__(self, destination: str) -> None:
        self.destination = destination
        self.came = 0
        self.ended = False

    async def __call__(self, stream: Stream) -> None:
        await stream.read()
        reading = asyncio.create_task(stream.read())
        while await asyncio.wait([reading], timeout=0.3) != (set(), {reading}):
            message = reading.result()
            assert message is not None
            self.came += 1
            self.ended = ends(message)
            if self.ended:
                break
            reading = asyncio.create_task(stream.read())
        await stream.write(picked("request_headers", self.destination), *[plain("request_body")] * self.came)
        message = await (stream.read() if self.ended else reading)
        while message is not None:
            await stream.write(plain(str(message.WhichOneof("request"))))
            message = await stream.read()


@pytest.mark.parametrize(
    ("size", "early", "came", "ended"),
    [
        pytest.param(100, False, False, False, id="not asked to: nothing before the headers' answer"),
        pytest.param(100, True, True, True, id="asked to, short: the whole body"),
        pytest.param(200_000, True, True, False, id="asked to, long: a part, however long one waits"),
    ],
)
def test_streamed_pieces_before_the_headers_answer(size: int, early: bool, came: bool, ended: bool, which: str) -> None:
    late = Late("")

    def script(engine: str) -> Script:
        late.destination = engine
        return late

    long = request("POST", "/v1/completions", body=b"x" * size)
    seen = experiment(which, script, long, send_body_early=early, **STREAMED)
    assert (seen.reply.status, late.came > 0, late.ended) == (200, came, ended)


def test_a_destination_in_a_streamed_body_answer_comes_too_late(which: str) -> None:
    def script(engine: str) -> Script:
        late = {name: [picked("request_body", engine)] for name in ("request_body", "request_body!")}
        return Picking(engine, instead={"request_headers": [plain("request_headers")], **late})

    seen = experiment(which, script, send_body_early=True, **STREAMED)
    assert (seen.reply.status, seen.engine.heads) == (503, [])


# -- headers


@pytest.mark.parametrize(
    ("mutation", "arrives"),
    [
        pytest.param(option("x-c", "ours"), ["ours"], id="raw_value"),
        pytest.param(HeaderValueOption(header=HeaderValue(key="x-c", value="ours")), [""], id="value alone"),
        pytest.param(
            HeaderValueOption(header=HeaderValue(key="x-c", value="a", raw_value=b"ours")), ["ours"], id="both"
        ),
        *(
            pytest.param(
                HeaderValueOption(header=HeaderValue(key="x-c", raw_value=b"ours"), append_action=action),
                ["ours"],
                id=f"append_action {action}",
            )
            for action in range(4)
        ),
        pytest.param(
            HeaderValueOption(header=HeaderValue(key="x-c", raw_value=b"ours"), append=BoolValue(value=True)),
            ["one", "two", "ours"],
            id="append",
        ),
    ],
)
def test_a_set_header_replaces_what_the_client_sent(
    mutation: HeaderValueOption, arrives: list[str], which: str
) -> None:
    def script(engine: str) -> Script:
        answer = picked("request_headers", engine)
        answer.request_headers.response.header_mutation.set_headers.append(mutation)
        return Picking(engine, instead={"request_headers!": [answer]})

    seen = experiment(which, script, request("GET", "/v1/models", "x-c: one", "x-c: two"))
    assert seen.engine.header("x-c") == arrives


def test_a_header_with_a_line_break_fails_the_request(which: str) -> None:
    def script(engine: str) -> Script:
        answer = picked("request_headers", engine)
        answer.request_headers.response.header_mutation.set_headers.append(option("x-c", "a\nb"))
        return Picking(engine, instead={"request_headers!": [answer]})

    assert experiment(which, script, GET).reply.status == 503


@pytest.mark.parametrize(("path", "answered"), [("/204", "response_headers!"), ("/v1/completions", "response_headers")])
def test_response_headers_are_set_and_removed_with_and_without_a_body(path: str, answered: str, which: str) -> None:
    answer = plain("response_headers")
    mutation = answer.response_headers.response.header_mutation
    mutation.remove_headers.append("x-engine")
    mutation.set_headers.append(option("x-ours", "7"))
    sent = request("POST", path, body=BODY)
    reply = experiment(which, lambda engine: Picking(engine, instead={answered: [answer]}), sent).reply
    assert (reply.header("x-engine"), reply.header("x-ours")) == (None, "7")


# -- immediate responses and early ends


@pytest.mark.parametrize(
    ("at", "modes"),
    [
        ("request_headers", DUPLEX),
        ("request_body", DUPLEX),
        ("request_body!", DUPLEX),
        ("response_headers", DUPLEX),
        ("request_headers", BUFFERED),
        ("request_body!", BUFFERED),
        ("response_headers", BUFFERED),
        ("response_body!", BUFFERED),
        ("request_headers", STREAMED),
        ("request_body!", STREAMED),
    ],
    ids=lambda value: value["request_body"] if isinstance(value, dict) else value,
)
def test_an_immediate_response_reaches_the_client(at: str, modes: Modes, which: str) -> None:
    seen = experiment(which, lambda engine: Picking(engine, instead={at: [refusal()]}, leave_after=at), **modes)
    reply = seen.reply
    assert (reply.status, reply.body, reply.header("content-type")) == (429, b"busy", "application/json")
    assert len(seen.engine.heads) == at.startswith("response")


def test_an_immediate_response_after_pieces_went_back_reaches_the_client(which: str) -> None:
    def script(engine: str) -> Script:
        said = [picked("request_headers", engine), streamed("request_body", b"x", False), refusal()]
        return Picking(engine, instead={"request_body!": said}, leave_after="request_body!")

    assert experiment(which, script).reply.status == 429


@pytest.mark.parametrize("modes", [DUPLEX, BUFFERED, STREAMED], ids=lambda modes: modes["request_body"])
def test_a_stream_ended_before_the_response_began_lets_it_pass(modes: Modes, which: str) -> None:
    late = request("POST", "/late", body=BODY)
    seen = experiment(which, lambda engine: Picking(engine, leave_after="request_body!"), late, **modes)
    assert (seen.reply.status, seen.reply.body.count(b"data: ")) == (200, 6)


@pytest.mark.parametrize(("status_on_error", "status"), [(503, 503), (0, 500)])
def test_a_failed_stream_gives_status_on_error(status_on_error: int, status: int, which: str) -> None:
    async def fails(stream: Stream) -> None:
        await stream.read()
        raise RuntimeError("a fault of the server")

    assert experiment(which, lambda _: fails, status_on_error=status_on_error).reply.status == status


@pytest.mark.parametrize(
    ("modes", "status"),
    [(DUPLEX, 0), (BUFFERED, 504), (STREAMED, 504)],
    ids=lambda value: value["request_body"] if isinstance(value, dict) else "",
)
def test_message_timeout_guards_every_mode_but_full_duplex(modes: Modes, status: int, which: str) -> None:
    async def silent(stream: Stream) -> None:
        while await stream.read() is not None:
            pass

    seen = experiment(which, lambda _: silent, GET, message_timeout_s=0.2, timeout_s=1.0, **modes)
    assert seen.reply.status == status


def test_the_timeout_of_the_grpc_service_does_not_bound_a_stream(which: str) -> None:
    hang = request("POST", "/hang-mid", body=BODY)
    seen = experiment(which, Picking, hang, grpc_timeout_s=0.2, timeout_s=1.0)
    assert (seen.reply, seen.counters["streams_closed"], seen.counters["streams_failed"]) == (HANGS, 0, 0)


# -- who chooses the host


@pytest.mark.parametrize("modes", [DUPLEX, BUFFERED], ids=lambda modes: modes["request_body"])
@pytest.mark.parametrize("by", ["header", "metadata", "both"])
def test_override_host_obeys_header_and_metadata(by: str, modes: Modes, which: str) -> None:
    assert _override(which, by, "{}", modes) == {"wanted": 4, "other": 0}


@pytest.mark.parametrize(
    ("destination", "hits"),
    [
        pytest.param("127.0.0.9:1,{}", {"wanted": 4, "other": 0}, id="an unknown member is skipped"),
        pytest.param("127.0.0.9:1", {"wanted": 2, "other": 2}, id="none known: balanced without a word"),
    ],
)
def test_override_host_and_hosts_it_does_not_know(destination: str, hits: dict[str, int], which: str) -> None:
    assert _override(which, "both", destination, DUPLEX) == hits


def _override(which: str, by: str, destination: str, modes: Modes) -> dict[str, int]:
    def script(engine: str) -> Script:
        name = "request_body" if modes is BUFFERED else "request_headers"
        answer = picked(name, destination.format(engine))
        if by == "metadata":
            del getattr(answer, name).response.header_mutation.set_headers[:]
        if by == "header":
            answer.ClearField("dynamic_metadata")
        pieces = [] if modes is BUFFERED else [streamed("request_body", BODY, True)]
        return Picking(engine, instead={"request_body!": [answer, *pieces]})

    seen: Seen = experiment(which, script, times=4, destination="override_host", **modes)
    return {"wanted": len(seen.engine.heads), "other": len(seen.other.heads)}
