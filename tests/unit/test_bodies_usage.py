"""Token counts out of responses as vLLM sent them, and as others might."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.bodies.anthropic import AnthropicParser
from epp.bodies.lines import MAX_LINE_BYTES, Lines
from epp.bodies.openai import OpenAIParser
from epp.bodies.parsed import Parser
from epp.bodies.sglanghttp import SglangHttpParser
from epp.bodies.usage import MAX_BODY_BYTES
from epp.types import Usage

RECORDED = Path(__file__).parents[1] / "fixtures" / "bodies"
SSE, JSON = "text/event-stream; charset=utf-8", "application/json"
CHAT_STREAM = (RECORDED / "chat-stream.sse").read_bytes()

openai, anthropic, sglang = OpenAIParser(), AnthropicParser(), SglangHttpParser()


def seen(parser: Parser, content_type: str, *pieces: bytes) -> tuple[Usage | None, int]:
    reader = parser.reader(content_type)
    for piece in pieces:
        reader.feed(piece)
    reader.end()
    return reader.usage, reader.events


def told(block: Any) -> Usage | None:
    return seen(openai, JSON, json.dumps({"usage": block}).encode())[0]


def events(*bodies: Any) -> bytes:
    return b"".join([b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies])


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("parser", "content_type", "file", "usage", "count"),
    [
        (openai, SSE, "chat-stream.sse", Usage(7, 6, 13), 8),
        (openai, SSE, "responses-stream.sse", Usage(7, 6, 13, 0), 11),
        (openai, JSON, "completion.json", Usage(329, 40, 369), 0),
        (openai, JSON, "error-404.json", None, 0),
        (anthropic, "Text/Event-Stream", "anthropic-stream.sse", Usage(7, 6, 13), 7),
    ],
    ids=["chat", "responses", "completion", "error", "anthropic"],
)
def test_recorded_responses_are_understood(
    parser: Parser, content_type: str, file: str, usage: Usage | None, count: int
) -> None:
    assert seen(parser, content_type, (RECORDED / file).read_bytes()) == (usage, count)


@given(
    st.sampled_from(["chat-stream.sse", "responses-stream.sse", "anthropic-stream.sse"]),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_a_stream_tells_the_same_however_it_is_cut(file: str, places: list[int]) -> None:
    body = (RECORDED / file).read_bytes()
    assert seen(openai, SSE, *cut(body, places)) == seen(openai, SSE, body)


def test_a_stream_in_single_bytes_tells_the_same() -> None:
    assert seen(openai, SSE, *[bytes([byte]) for byte in CHAT_STREAM]) == (Usage(7, 6, 13), 8)


@pytest.mark.parametrize(
    "body",
    [
        CHAT_STREAM.replace(b"\n", b"\r\n"),
        CHAT_STREAM.replace(b"data: ", b"data:"),
        CHAT_STREAM.replace(b"\n\ndata: [DONE]\n\n", b""),
    ],
    ids=["crlf", "no-space", "no-newline-at-the-end"],
)
def test_other_spellings_of_a_stream_tell_the_same(body: bytes) -> None:
    assert seen(openai, SSE, body) == (Usage(7, 6, 13), 8)


def test_a_plain_answer_to_a_streamed_request_is_read_as_what_it_is() -> None:
    body = (RECORDED / "completion.json").read_bytes()
    assert seen(openai, JSON, body[:100], body[100:]) == (Usage(329, 40, 369), 0)


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(5, 2, 7)),
        ({"prompt_tokens": 5, "completion_tokens": 2}, Usage(5, 2, 7)),
        ({"prompt_tokens": 5, "total_tokens": 9}, Usage(5, 0, 5)),
        ({"input_tokens": 5, "output_tokens": 2, "total_tokens": 8}, Usage(5, 2, 8)),
        ({"prompt_tokens": "5", "completion_tokens": "2.0"}, Usage(5, 2, 7)),
        ({"prompt_tokens": 5, "completion_tokens": "x"}, Usage(5, 0, 5)),
        ({"prompt_tokens": 5, "completion_tokens": True}, Usage(5, 0, 5)),
        ({"prompt_tokens": 5, "completion_tokens": -2}, Usage(5, 0, 5)),
        ({"prompt_tokens": 5, "completion_tokens": "1e999"}, Usage(5, 0, 5)),
        ({"prompt_tokens": 10**30, "completion_tokens": 2}, Usage(0, 2, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 1e300, "cached_tokens": "1e300"}, Usage(5, 0, 5)),
        ({"prompt_tokens": None, "input_tokens": 5, "completion_tokens": 2}, Usage(5, 2, 7)),
        ({"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}}, Usage(5, 0, 5, 3)),
        ({"input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}}, Usage(5, 0, 5, 0)),
        ({"prompt_tokens": 5, "prompt_tokens_details": 7}, Usage(5, 0, 5)),
        ({"input_tokens": 5, "cache_read_input_tokens": 3}, Usage(5, 0, 5, 3)),
        ({}, None),
        (None, None),
        ("many", None),
    ],
    ids=str,
)
def test_a_usage_block_is_read_tolerantly(block: Any, usage: Usage | None) -> None:
    assert told(block) == usage


def test_counts_above_zero_replace_earlier_ones_in_a_stream() -> None:
    body = events(
        {"usage": {"prompt_tokens": 7, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}},
        {"usage": None},
        {"usage": {"prompt_tokens": 0, "completion_tokens": 3}},
    )
    assert seen(openai, SSE, body) == (Usage(7, 3, 10, 4), 3)


def test_anthropic_halves_of_two_events_make_one_usage() -> None:
    body = events(
        {"type": "message_start", "message": {"usage": {"input_tokens": 25, "cache_read_input_tokens": 9}}},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 15}},
    )
    assert seen(anthropic, SSE, body) == (Usage(25, 15, 40, 9), 2)


def test_sglang_counts_are_those_of_the_event_that_has_a_reason_to_finish() -> None:
    body = events(
        {"text": "a", "meta_info": {"prompt_tokens": 5, "completion_tokens": 1, "finish_reason": None}},
        {"meta_info": {"prompt_tokens": 5, "completion_tokens": 2, "cached_tokens": 3, "finish_reason": {"type": "x"}}},
    )
    assert seen(sglang, SSE, body) == (Usage(5, 2, 7, 3), 2)
    assert seen(sglang, SSE, body.partition(b"\n\n")[0]) == (None, 1)


def test_sglang_counts_of_a_plain_answer_need_no_reason() -> None:
    body = b'{"text":"a","meta_info":{"prompt_tokens":5,"completion_tokens":2,"cached_tokens":0}}'
    assert seen(sglang, JSON, body) == (Usage(5, 2, 7, 0), 0)


@pytest.mark.parametrize("text", [b'{"usage":', b'["usage"]', b'{"usage":1,"message":"x"}', b'"usage"\xff'])
@pytest.mark.parametrize("content_type", [SSE, JSON, ""])
def test_a_broken_response_tells_nothing(content_type: str, text: bytes) -> None:
    assert seen(openai, content_type, b"data: " + text if content_type == SSE else text)[0] is None


@given(st.lists(st.binary(max_size=60)), st.sampled_from([SSE, JSON]), st.sampled_from([openai, sglang]))
def test_no_response_is_an_error(pieces: list[bytes], content_type: str, parser: Parser) -> None:
    usage, count = seen(parser, content_type, *pieces)
    assert usage is None
    assert count <= b"".join(pieces).count(b"data:")


def test_an_overlong_line_is_dropped_and_the_next_one_read() -> None:
    usage = {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    long = events({**usage, "x": "y" * MAX_LINE_BYTES})
    assert seen(openai, SSE, long, events(usage)) == (Usage(1, 1, 2), 1)
    assert seen(openai, SSE, long[:5000], long[5000:-9], long[-9:]) == (None, 0)


def test_an_overlong_body_is_not_kept() -> None:
    usage = b'{"usage":{"prompt_tokens":1,"completion_tokens":1},"x":"'
    body = usage + b"y" * (MAX_BODY_BYTES - len(usage) - 2) + b'"}'
    assert seen(openai, JSON, body[:-1], body[-1:]) == (Usage(1, 1, 2), 0)
    assert seen(openai, JSON, body, b" ") == (None, 0)


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\nd", b""])))
def test_lines_joined_are_what_was_fed(pieces: list[bytes]) -> None:
    lines = Lines()
    cuts = [one for piece in pieces for one in lines.feed(piece)] + lines.end()
    assert all(whole and text.count(b"\n") == text.endswith(b"\n") for text, whole in cuts)
    assert b"".join([text for text, _ in cuts]) == b"".join(pieces)


LINES = st.sampled_from([
    b'data: {"choices":[]}', b"data:", b": ping", b"", b"event: x", b"data: [DONE]", b"dat",
    b'data: {"type":"message_stop"}', b'data: { "type": "message_stop"}', b'data: { "type" : "message_stop" }',
    b'data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}', b'data: {"choices":[{"text":"a word or two"}]}',
    b'data: {"choices":[{"text":"[DONE] or message_stop"}]}',
])  # fmt: skip


@given(st.lists(st.one_of(st.lists(LINES, max_size=3), LINES.map(lambda line: [line, b""]))))
def test_events_in_whole_pieces_are_read_as_those_that_come_byte_by_byte(pieces: list[list[bytes]]) -> None:
    whole, cut = openai.reader(SSE), openai.reader(SSE)
    for lines in pieces:
        sent = b"".join([line + b"\n" for line in lines])
        whole.feed(sent)
        for at in range(len(sent)):
            cut.feed(sent[at : at + 1])
        assert (whole.usage, whole.events, whole.complete) == (cut.usage, cut.events, cut.complete)
