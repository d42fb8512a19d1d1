"""The OpenAI APIs: chat, completions, embeddings, responses, conversations, images."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from epp.bodies.jsonbody import Rules, listing, packed, read, text, token_limit
from epp.bodies.openai_shapes import (
    ABSENT,
    Block,
    Body,
    Chat,
    Completions,
    Conversations,
    Embeddings,
    Images,
    Message,
    Responses,
    Source,
    Texts,
)
from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.usage import OPENAI, usage_reader
from epp.headers import Headers
from epp.types import Media, Prompt


def _part(block: Block) -> bytes | Media:
    """b"" for what is not part of the prompt."""
    match block.type:
        case "text":
            return (block.text or "").encode()
        case "image_url":
            return _linked("image", block.image_url)
        case "video_url":
            return _linked("video", block.video_url)
        case "audio_url":
            return _linked("audio", block.audio_url)
        case "input_audio" if block.input_audio and block.input_audio.content:
            return Media("audio", block.input_audio.content)
    return b""


def _linked(kind: str, source: Source | None) -> bytes | Media:
    return Media(kind, source.url) if source and source.url else b""


def _parsed(body: Body, api: str, prompts: tuple[Prompt, ...], limit: int | None = None) -> Parsed:
    return Parsed(
        api=api,
        model=text(body.model),
        stream=body.stream is True,
        max_output_tokens=limit,
        prompts=prompts,
        cache_salt=body.cache_salt or "",
        rewritable=True,
    )


def _chat(body: Chat) -> Parsed | None:
    if body.documents is not ABSENT:
        listing(body.documents)
    messages = body.messages
    if not messages:
        return None
    parts: list[bytes | Media] = []
    if body.tools is not ABSENT:
        _add(parts, listing(body.tools))
    for message in messages:
        _add_message(parts, message)
    return _parsed(body, "chat", (Prompt(parts),), token_limit(body.max_completion_tokens, body.max_tokens))


def _add(parts: list[bytes | Media], part: bytes | Media) -> None:
    if part:
        parts.append(part)


def _add_message(parts: list[bytes | Media], message: Message) -> None:
    role, content = message.role, message.content
    if role:
        parts.append(role.encode())
    if isinstance(content, list):
        for block in content:
            _add(parts, _part(block))
    elif content:
        parts.append(content.encode())


def _completions(body: Completions) -> Parsed | None:
    prompts = _each(body.prompt)
    return _parsed(body, "completions", prompts, token_limit(body.max_tokens)) if prompts else None


def _each(sent: Texts) -> tuple[Prompt, ...]:
    """One prompt for each text, or one of all token ids; none if there is nothing, or both kinds are mixed."""
    if isinstance(sent, str):
        return (Prompt([sent.encode()]),) if sent else ()
    if not sent:
        return ()
    if isinstance(sent[0], int):
        return (Prompt(token_ids=packed(sent)),)
    prompts = tuple([Prompt([item.encode()]) for item in sent if isinstance(item, str)])
    return prompts if len(prompts) == len(sent) else ()


def _embeddings(body: Embeddings) -> Parsed | None:
    prompts = _each(body.input)
    if prompts and prompts[0].token_ids is None:
        prompts = (Prompt([msgspec.json.encode(body.input)]),)
    return _parsed(body, "embeddings", prompts) if prompts else None


def _responses(body: Responses) -> Parsed | None:
    fields = (("instructions", body.instructions), ("tools", body.tools), ("input", body.input))
    sent = [{name: value} for name, value in fields if bytes(value) not in {b"", b"null"}]
    if not sent or "input" not in sent[-1]:
        return None
    prompt = Prompt([msgspec.json.encode(sent)])
    return _parsed(body, "responses", (prompt,), token_limit(body.max_output_tokens))


def _conversations(body: Conversations) -> Parsed | None:
    if not body.items:
        return None
    return _parsed(body, "conversations", (Prompt([msgspec.json.encode(body.items)]),))


def _images(body: Images) -> Parsed | None:
    return _parsed(body, "images", ()) if body.prompt else None


def _rules(shape: type, convert: Callable[[Any], Parsed | None], api: str, field: str) -> Rules:
    return Rules(msgspec.json.Decoder(shape), convert, f"invalid {api} request: must have {field} field")


_CHAT = _rules(Chat, _chat, "chat completions", "valid messages")
_COMPLETIONS = _rules(Completions, _completions, "completions", "prompt")
_RULES = {
    "chat/completions/render": _CHAT,
    "completions/render": _COMPLETIONS,
    "images/generations": _rules(Images, _images, "images generations", "prompt"),
    "chat/completions": _CHAT,
    "conversations": _rules(Conversations, _conversations, "conversations", "items"),
    "completions": _COMPLETIONS,
    "embeddings": _rules(Embeddings, _embeddings, "embeddings", "input"),
    "responses": _rules(Responses, _responses, "responses", "input"),
}


@lru_cache(256)
def _rules_for(path: str) -> Rules:
    """By the longest suffix; completions for every other path."""
    rooted = "/" + path.strip("/")
    for suffix, rules in _RULES.items():
        if rooted.endswith("/" + suffix):
            return rules
    return _COMPLETIONS


class OpenAIParser:
    """Bodies and answers of the OpenAI APIs, the engine-side `render` twins of chat and completions included.

    A chat prompt is the tools' JSON as sent, then each message's role and content; no separators and no chat
    template, so it tells prompts apart as the engine does without being what the engine sees.
    """

    paths: tuple[str, ...] = tuple(_RULES)
    protocols: tuple[str, ...] = ("http", "kubernetes.io/h2c")

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        return read(body, _rules_for(path))

    def reader(self, content_type: str) -> ResponseReader:
        return usage_reader(content_type, OPENAI)
