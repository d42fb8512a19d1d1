"""/v1/completions and /v1/chat/completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sim.api import Api, ApiError, Ask, Choice, Reply, framed
from sim.bodies import Message, StreamOptions, conversation, decode, json_text, plain_text, positive

_DONE = b"data: [DONE]\n\n"


class _Asked(msgspec.Struct):
    model: str = ""
    max_tokens: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    ignore_eos: bool | None = None


class _Completion(_Asked):
    prompt: str | list[str | int | list[int]] = ""


class _Chat(_Asked):
    messages: list[Message] = []
    max_completion_tokens: int | None = None


def _ask(body: _Asked, prompts: tuple[bytes, ...], said: tuple[str, ...], max_tokens: int | None) -> Ask:
    options = body.stream_options
    return Ask(
        body.model,
        prompts,
        said,
        positive(max_tokens, "max_tokens"),
        stream=bool(body.stream),
        include_usage=bool(options and options.include_usage),
        choices=positive(body.n, "n") or 1,
        ignore_eos=bool(body.ignore_eos),
    )


def _parse_chat(body: bytes) -> Ask:
    chat = decode(body, _Chat)
    if not chat.messages:
        raise ApiError(400, "messages must not be empty.", "messages")
    said = plain_text(chat.messages[-1].content)
    return _ask(chat, (conversation(chat.messages),), (said,), chat.max_completion_tokens or chat.max_tokens)


def _usage(reply: Reply) -> Mapping[str, object]:
    return {
        "prompt_tokens": reply.prompt_tokens,
        "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        "completion_tokens": reply.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
    }


def _head(reply: Reply, kind: str) -> Mapping[str, object]:
    return {"id": reply.id, "object": kind, "created": reply.created, "model": reply.model}


def _chunk_start(reply: Reply, kind: str) -> str:
    return (
        f'data: {{"id":"{reply.id}","object":"{kind}","created":{reply.created},'
        f'"model":{json_text(reply.model)},"choices":['
    )


def _closing(reply: Reply, kind: str) -> bytes:
    if not reply.ask.include_usage:
        return _DONE
    usage = msgspec.json.encode(_usage(reply))
    return b'%b],"usage":%b}\n\n' % (_chunk_start(reply, kind).encode(), usage) + _DONE


def _whole_chat(reply: Reply) -> object:
    choices: list[Mapping[str, object]] = [
        {
            "index": choice.index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None, "tool_calls": []},
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
        }
        for choice in reply.choices
    ]
    return {**_head(reply, "chat.completion"), "choices": choices, "usage": _usage(reply)}


_CHAT_CHUNK = "chat.completion.chunk"


def _open_chat(reply: Reply) -> bytes:
    start = _chunk_start(reply, _CHAT_CHUNK)
    end = '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
    return "".join([f'{start}{{"index":{choice.index},{end}' for choice in reply.choices]).encode()


def _chat_chunks(reply: Reply, choice: Choice) -> Iterator[bytes]:
    before = f'{_chunk_start(reply, _CHAT_CHUNK)}{{"index":{choice.index},"delta":{{"content":"'
    after = b'"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
    last = f'"}},"logprobs":null,"finish_reason":"{choice.finish_reason}","stop_reason":null,"token_ids":null}}]}}\n\n'
    return framed(choice.pieces, before.encode(), after, last.encode())


CHAT = Api(
    id_prefix="chatcmpl-",
    parse=_parse_chat,
    whole=_whole_chat,
    opening=_open_chat,
    chunks=_chat_chunks,
    closing=lambda reply: _closing(reply, _CHAT_CHUNK),
    reports_load=True,
)


def _token_bytes(ids: list[int]) -> bytes:
    """A token id is as many bytes as a token of text has."""
    try:
        return b"".join([i.to_bytes(4, "little") for i in ids])
    except OverflowError as wrong:
        raise ApiError(400, "token ids must lie between 0 and 4294967295.", "prompt") from wrong


def _prompts(prompt: str | list[str | int | list[int]]) -> list[str | list[int]]:
    """Texts and token id lists; a flat list of ids is one prompt."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    if not ids:
        return [item for item in prompt if not isinstance(item, int)]
    if len(ids) < len(prompt):
        raise ApiError(400, "prompt must not mix token ids with other prompts.", "prompt")
    return [ids]


def _parse_completion(body: bytes) -> Ask:
    completion = decode(body, _Completion)
    prompts = _prompts(completion.prompt)
    if not all(prompts) or not prompts:
        raise ApiError(400, "prompt must not be empty.", "prompt")
    texts = tuple([p.encode() if isinstance(p, str) else _token_bytes(p) for p in prompts])
    said = tuple([p if isinstance(p, str) else "" for p in prompts])
    return _ask(completion, texts, said, completion.max_tokens)


def _whole_completion(reply: Reply) -> object:
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            "logprobs": None,
            "finish_reason": choice.finish_reason,
            "stop_reason": None,
        }
        for choice in reply.choices
    ]
    return {**_head(reply, "text_completion"), "choices": choices, "usage": _usage(reply)}


def _completion_chunks(reply: Reply, choice: Choice) -> Iterator[bytes]:
    before = f'{_chunk_start(reply, "text_completion")}{{"index":{choice.index},"text":"'
    after = b'","logprobs":null,"finish_reason":null,"stop_reason":null}]}\n\n'
    last = f'","logprobs":null,"finish_reason":"{choice.finish_reason}","stop_reason":null}}]}}\n\n'
    return framed(choice.pieces, before.encode(), after, last.encode())


COMPLETIONS = Api(
    id_prefix="cmpl-",
    parse=_parse_completion,
    whole=_whole_completion,
    opening=lambda reply: b"",
    chunks=_completion_chunks,
    closing=lambda reply: _closing(reply, "text_completion"),
    reports_load=True,
)
