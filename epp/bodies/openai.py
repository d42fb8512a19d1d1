"""The OpenAI APIs: chat, completions, embeddings, responses, conversations, images."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from epp.bodies.jsonbody import Loose, Rules, Shape, listing, packed, read, text, token_limit
from epp.bodies.parsed import Headers, Parsed, ResponseReader
from epp.bodies.usage import OPENAI, usage_reader
from epp.types import Media, Prompt

# The array forms of msgspec's unions cannot be told apart by what they hold, so strings and ids share one.
Texts = str | list[str | int] | None


_ABSENT = msgspec.Raw()


class _Source(msgspec.Struct, gc=False):
    url: str | None = None


class _Audio(msgspec.Struct, gc=False):
    content: str | None = msgspec.field(default=None, name="data")


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    image_url: _Source | None = None
    video_url: _Source | None = None
    audio_url: _Source | None = None
    input_audio: _Audio | None = None

    def part(self) -> bytes | Media:
        """b"" for what is not part of the prompt."""
        match self.type:
            case "text":
                return (self.text or "").encode()
            case "image_url":
                return _linked("image", self.image_url)
            case "video_url":
                return _linked("video", self.video_url)
            case "audio_url":
                return _linked("audio", self.audio_url)
            case "input_audio" if self.input_audio and self.input_audio.content:
                return Media("audio", self.input_audio.content)
        return b""


def _linked(kind: str, source: _Source | None) -> bytes | Media:
    return Media(kind, source.url) if source and source.url else b""


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[_Block] | None = None


class _Body(msgspec.Struct, gc=False):
    model: Loose = None
    stream: Loose = None
    cache_salt: str | None = None

    def as_parsed(self, api: str, prompts: tuple[Prompt, ...], limit: int | None = None) -> Parsed:
        return Parsed(
            api=api,
            model=text(self.model),
            stream=self.stream is True,
            max_output_tokens=limit,
            prompts=prompts,
            cache_salt=self.cache_salt or "",
            rewritable=True,
        )


class _Chat(_Body, gc=False):
    messages: list[_Message] | None = None
    tools: msgspec.Raw = _ABSENT
    documents: msgspec.Raw = _ABSENT
    max_completion_tokens: Loose = None
    max_tokens: Loose = None
    # Only their types matter: an engine refuses them too.
    chat_template: str | None = None
    chat_template_kwargs: dict[str, msgspec.Raw] | None = None
    return_assistant_tokens_mask: bool | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None

    def parsed(self) -> Parsed | None:
        if self.documents is not _ABSENT:
            listing(self.documents)
        if not self.messages:
            return None
        parts: list[bytes | Media] = [] if self.tools is _ABSENT else [listing(self.tools)]
        for message in self.messages:
            parts.append((message.role or "").encode())
            if isinstance(message.content, list):
                parts += [block.part() for block in message.content]
            else:
                parts.append((message.content or "").encode())
        prompt = Prompt([part for part in parts if part])
        return self.as_parsed("chat", (prompt,), token_limit(self.max_completion_tokens, self.max_tokens))


class _Completions(_Body, gc=False):
    prompt: Texts = None
    max_tokens: Loose = None

    def parsed(self) -> Parsed | None:
        prompts = _each(self.prompt)
        return self.as_parsed("completions", prompts, token_limit(self.max_tokens)) if prompts else None


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


class _Embeddings(_Body, gc=False):
    input: Texts = None

    def parsed(self) -> Parsed | None:
        prompts = _each(self.input)
        if prompts and prompts[0].token_ids is None:
            prompts = (Prompt([msgspec.json.encode(self.input)]),)
        return self.as_parsed("embeddings", prompts) if prompts else None


class _Responses(_Body, gc=False):
    input: msgspec.Raw = msgspec.Raw()
    instructions: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    max_output_tokens: Loose = None

    def parsed(self) -> Parsed | None:
        fields = (("instructions", self.instructions), ("tools", self.tools), ("input", self.input))
        sent = [{name: value} for name, value in fields if bytes(value) not in {b"", b"null"}]
        if not sent or "input" not in sent[-1]:
            return None
        prompt = Prompt([msgspec.json.encode(sent)])
        return self.as_parsed("responses", (prompt,), token_limit(self.max_output_tokens))


class _Item(msgspec.Struct, gc=False, omit_defaults=True):
    type: str | None = None
    role: str | None = None
    content: Loose = None


class _Conversations(_Body, gc=False):
    items: list[_Item] | None = None
    metadata: dict[str, msgspec.Raw] | None = None

    def parsed(self) -> Parsed | None:
        if not self.items:
            return None
        return self.as_parsed("conversations", (Prompt([msgspec.json.encode(self.items)]),))


class _Images(_Body, gc=False):
    prompt: str | None = None

    def parsed(self) -> Parsed | None:
        return self.as_parsed("images", ()) if self.prompt else None


def _rules(shape: type[Shape], api: str, field: str) -> Rules:
    return Rules(msgspec.json.Decoder(shape), f"invalid {api} request: must have {field} field")


_CHAT = _rules(_Chat, "chat completions", "valid messages")
_COMPLETIONS = _rules(_Completions, "completions", "prompt")
_RULES = {
    "chat/completions/render": _CHAT,
    "completions/render": _COMPLETIONS,
    "images/generations": _rules(_Images, "images generations", "prompt"),
    "chat/completions": _CHAT,
    "conversations": _rules(_Conversations, "conversations", "items"),
    "completions": _COMPLETIONS,
    "embeddings": _rules(_Embeddings, "embeddings", "input"),
    "responses": _rules(_Responses, "responses", "input"),
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
