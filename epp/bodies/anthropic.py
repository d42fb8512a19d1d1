"""The Anthropic Messages API."""

from __future__ import annotations

import msgspec

from epp.bodies.jsonbody import Loose, Rules, listing, read, text, token_limit
from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.usage import OPENAI, usage_reader
from epp.headers import Headers
from epp.types import Media, Prompt

BILLING = "x-anthropic-billing-header"
"""Opens a system block that coding clients change with every request; engines drop it, or nothing would be cached."""


class _Source(msgspec.Struct, gc=False):
    type: str | None = None
    url: str | None = None
    content: str | None = msgspec.field(default=None, name="data")
    media_type: str | None = None


class _Inner(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    source: _Source | None = None


class _Block(msgspec.Struct, gc=False):
    type: str | None = None
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = msgspec.Raw()
    source: _Source | None = None
    content: str | list[_Inner] | None = None

    def parts(self) -> list[bytes | Media]:
        match self.type:
            case "text":
                return [_bytes(self.text)]
            case "image":
                return _image(self.source)
            case "thinking":
                return [_bytes(self.thinking)]
            case "tool_use":
                return [_bytes(self.id), _bytes(self.name), bytes(self.input)]
            case "tool_result":
                return _result(self.content)
        return []


def _bytes(value: str | None) -> bytes:
    return (value or "").encode()


def _image(source: _Source | None) -> list[bytes | Media]:
    if source is None or not (source.url or source.content):
        return []
    kind = source.media_type or "image/jpeg"
    return [Media("image", source.url or f"data:{kind};base64,{source.content}")]


def _result(content: str | list[_Inner] | None) -> list[bytes | Media]:
    """A tool's answer: its texts, a line each, then its images."""
    if not isinstance(content, list):
        return [_bytes(content)]
    lines = [block.text or "" for block in content if block.type == "text"]
    images = [image for block in content if block.type == "image" for image in _image(block.source)]
    return ["\n".join(lines).encode(), *images]


class _Message(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | list[_Block] | None = None


class _Messages(msgspec.Struct, gc=False):
    model: Loose = None
    stream: Loose = None
    max_tokens: Loose = None
    cache_salt: str | None = None
    messages: list[_Message] | None = None
    system: str | list[_Inner] | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def parsed(self) -> Parsed | None:
        if not self.messages:
            return None
        return Parsed(
            api="messages",
            model=text(self.model),
            stream=self.stream is True,
            max_output_tokens=token_limit(self.max_tokens),
            prompts=(self._prompt(),),
            cache_salt=self.cache_salt or "",
            rewritable=True,
        )

    def _prompt(self) -> Prompt:
        parts: list[bytes | Media] = [listing(self.tools), self._system()]
        for message in self.messages or ():
            parts.append(_bytes(message.role))
            if isinstance(message.content, list):
                parts += [part for block in message.content for part in block.parts()]
            else:
                parts.append(_bytes(message.content))
        return Prompt([part for part in parts if part])

    def _system(self) -> bytes:
        if not isinstance(self.system, list):
            return _bytes(self.system)
        texts = [block.text or "" for block in self.system if block.type == "text"]
        return "".join([one for one in texts if not one.startswith(BILLING)]).encode()


_RULES = Rules(
    msgspec.json.Decoder(_Messages),
    _Messages.parsed,
    missing="invalid messages request: must have at least one message",
    mistyped="error parsing messages request",
    malformed="error unmarshaling request body",
)


class AnthropicParser:
    """Bodies and answers of the Anthropic Messages API; token counting is passed on unread."""

    paths: tuple[str, ...] = ("messages", "messages/count_tokens")
    protocols: tuple[str, ...] = ("http", "kubernetes.io/h2c")

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        if path.rstrip("/").endswith("/count_tokens"):
            return Parsed(api="count_tokens", skip_response=True)
        return read(body, _RULES)

    def reader(self, content_type: str) -> ResponseReader:
        return usage_reader(content_type, OPENAI)
