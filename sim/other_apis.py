"""/v1/messages (Anthropic) and /v1/responses (OpenAI): text only, one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sim.api import Api, ApiError, Ask, Choice, Reply, framed, sse
from sim.bodies import Content, Message, conversation, decode, plain_text, positive


class _Messages(msgspec.Struct):
    model: str = ""
    messages: list[Message] = []
    max_tokens: int | None = None
    system: Content = None
    stream: bool | None = None


def _parse_messages(body: bytes) -> Ask:
    asked = decode(body, _Messages)
    if not asked.messages:
        raise ApiError(400, "messages must not be empty.", "messages")
    if asked.max_tokens is None:
        raise ApiError(400, "max_tokens is required.", "max_tokens")
    system = [Message("system", asked.system)] if asked.system else []
    return Ask(
        asked.model,
        (conversation([*system, *asked.messages]),),
        (plain_text(asked.messages[-1].content),),
        positive(asked.max_tokens, "max_tokens"),
        stream=bool(asked.stream),
    )


def _tokens_in_and_out(reply: Reply) -> Mapping[str, int]:
    return {"input_tokens": reply.prompt_tokens, "output_tokens": reply.completion_tokens}


def _message(reply: Reply, content: list[object], usage: object, stop_reason: str | None) -> Mapping[str, object]:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "content": content,
        "model": reply.model,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage,
    }


def _stop_reason(choice: Choice) -> str:
    return "max_tokens" if choice.finish_reason == "length" else "end_turn"


def _whole_message(reply: Reply) -> object:
    choice = reply.choices[0]
    text = {"type": "text", "text": choice.text}
    return _message(reply, [text], _tokens_in_and_out(reply), _stop_reason(choice))


def _open_message(reply: Reply) -> bytes:
    usage = {**_tokens_in_and_out(reply), "output_tokens": 0}
    start = {"type": "message_start", "message": _message(reply, [], usage, None)}
    block = b'{"type":"content_block_start","content_block":{"type":"text","text":""},"index":0}'
    return sse("message_start", msgspec.json.encode(start)) + sse("content_block_start", block)


def _message_chunks(reply: Reply, choice: Choice) -> Iterator[bytes]:
    before = b"event: content_block_delta\ndata: "
    before += b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"'
    after = b'"},"index":0}\n\n'
    return framed(choice.pieces, before, after, after)


def _close_message(reply: Reply) -> bytes:
    delta = {"stop_reason": _stop_reason(reply.choices[0]), "stop_sequence": None}
    end = {"type": "message_delta", "delta": delta, "usage": _tokens_in_and_out(reply)}
    return (
        sse("content_block_stop", b'{"type":"content_block_stop","index":0}')
        + sse("message_delta", msgspec.json.encode(end))
        + sse("message_stop", b'{"type":"message_stop"}')
    )


MESSAGES = Api(
    id_prefix="chatcmpl-",
    parse=_parse_messages,
    whole=_whole_message,
    opening=_open_message,
    chunks=_message_chunks,
    closing=_close_message,
)


class _Responses(msgspec.Struct):
    model: str = ""
    input: str | list[Message] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None


def _parse_responses(body: bytes) -> Ask:
    asked = decode(body, _Responses)
    if not asked.input:
        raise ApiError(400, "input must not be empty.", "input")
    messages = [Message("user", asked.input)] if isinstance(asked.input, str) else asked.input
    system = [Message("system", asked.instructions)] if asked.instructions else []
    return Ask(
        asked.model,
        (conversation([*system, *messages]),),
        (plain_text(messages[-1].content),),
        positive(asked.max_output_tokens, "max_output_tokens"),
        stream=bool(asked.stream),
    )


def _item(reply: Reply, text: str | None) -> Mapping[str, object]:
    """The message of a response; None = still being written."""
    part: Mapping[str, object] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
    return {
        "id": f"msg_{reply.id}",
        "content": [] if text is None else [part],
        "role": "assistant",
        "status": "in_progress" if text is None else "completed",
        "type": "message",
    }


def _response(reply: Reply, *, done: bool) -> Mapping[str, object]:
    choice = reply.choices[0]
    cut = choice.finish_reason == "length"
    usage = {
        "input_tokens": reply.prompt_tokens,
        "input_tokens_details": {"cached_tokens": reply.cached_tokens},
        "output_tokens": reply.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
    }
    return {
        "id": reply.id,
        "created_at": reply.created,
        "incomplete_details": {"reason": "max_output_tokens"} if done and cut else None,
        "model": reply.model,
        "object": "response",
        "output": [_item(reply, choice.text)] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "none",
        "tools": [],
        "max_output_tokens": reply.ask.max_tokens,
        "status": ("incomplete" if cut else "completed") if done else "in_progress",
        "usage": usage if done else None,
    }


def _event(number: int, kind: str, **fields: object) -> bytes:
    return sse(kind, msgspec.json.encode({"type": kind, "sequence_number": number, **fields}))


def _open_response(reply: Reply) -> bytes:
    item = _item(reply, None)
    part: Mapping[str, object] = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
    place = {"output_index": 0, "content_index": 0, "item_id": item["id"]}
    return (
        _event(0, "response.created", response=_response(reply, done=False))
        + _event(1, "response.in_progress", response=_response(reply, done=False))
        + _event(2, "response.output_item.added", output_index=0, item=item)
        + _event(3, "response.content_part.added", part=part, **place)
    )


def _response_chunks(reply: Reply, choice: Choice) -> Iterator[bytes]:
    before = (
        "event: response.output_text.delta\ndata: "
        f'{{"type":"response.output_text.delta","content_index":0,"item_id":"msg_{reply.id}","delta":"'
    ).encode()
    after = b'","logprobs":[],"output_index":0,"sequence_number":%d}\n\n'
    for number, piece in enumerate(choice.pieces, 4):
        yield before + piece + after % number


def _close_response(reply: Reply) -> bytes:
    text = reply.choices[0].text
    place = {"output_index": 0, "content_index": 0, "item_id": f"msg_{reply.id}"}
    part: Mapping[str, object] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
    number = 4 + len(reply.choices[0].pieces)
    return (
        _event(number, "response.output_text.done", text=text, logprobs=[], **place)
        + _event(number + 1, "response.content_part.done", part=part, **place)
        + _event(number + 2, "response.output_item.done", output_index=0, item=_item(reply, text))
        + _event(number + 3, "response.completed", response=_response(reply, done=True))
    )


RESPONSES = Api(
    id_prefix="resp_",
    parse=_parse_responses,
    whole=lambda reply: _response(reply, done=True),
    opening=_open_response,
    chunks=_response_chunks,
    closing=_close_response,
)
