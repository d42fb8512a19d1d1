"""Token counts out of responses, JSON or server-sent events, while they pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from epp.bodies.jsonbody import MALFORMED, MOST_TOKENS
from epp.bodies.lines import MAX_LINE_BYTES, Lines, event_text
from epp.bodies.parsed import ResponseReader
from epp.bodies.usage_shapes import ANSWER, BODY, EVENT, Block
from epp.types import Usage

MAX_BODY_BYTES: Final = 8 << 20
"""A longer JSON body is not kept and so not read."""


def _of_body(text: bytes) -> Block:
    return BODY.decode(text).usage


def _of_event(text: bytes) -> Block:
    """Top level in chunks and Anthropic's message_delta; inside `response` in response.completed, inside `message`
    in Anthropic's message_start."""
    event = EVENT.decode(text)
    inner = event.response or event.message
    return event.usage or (inner.usage if inner else None)


def _of_answer(text: bytes) -> Block:
    return ANSWER.decode(text).meta_info


def _of_last_answer(text: bytes) -> Block:
    """SGLang counts in every event; only the last one, which has a reason to finish, counts everything."""
    block = _of_answer(text)
    return block if isinstance(block, dict) and block.get("finish_reason") is not None else None


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where an engine's API puts its counts."""

    mark: bytes
    """Without these bytes a JSON text is not decoded."""
    of_body: Callable[[bytes], Block]
    of_event: Callable[[bytes], Block]


OPENAI = Dialect(b'"usage"', _of_body, _of_event)
"""The OpenAI APIs and Anthropic's: the same places under other names."""
SGLANG = Dialect(b'"meta_info"', _of_answer, _of_last_answer)


DETAILS: Final = ["prompt_tokens_details", "input_tokens_details"]


def merged(known: Usage | None, block: Block) -> Usage | None:
    """`known` with what `block` tells. Counts above zero replace earlier ones, as engines repeat zeros while they
    stream; the reported total is believed only beside both halves."""
    if not isinstance(block, dict):
        return known
    prompt = _count(block, "prompt_tokens", "input_tokens")
    completion = _count(block, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return known
    cached = _cached(block)
    total = _whole(block.get("total_tokens")) if prompt and completion else None
    if known is not None:
        prompt = prompt or known.prompt_tokens
        completion = completion or known.completion_tokens
        cached = known.cached_tokens if cached is None else cached
    prompt, completion = prompt or 0, completion or 0
    return Usage(prompt, completion, total or prompt + completion, cached)


def _cached(block: dict[str, Any]) -> int | None:
    for name in DETAILS:
        details = block.get(name)
        if isinstance(details, dict) and (cached := _whole(details.get("cached_tokens"))) is not None:
            return cached
    return _count(block, "cached_tokens", "cache_read_input_tokens")


def _count(block: dict[str, Any], name: str, other: str) -> int | None:
    """The first of both that is there; None if none is, or if it is no count."""
    value = block.get(name)
    if value is None:
        value = block.get(other)
    return _whole(value)


def _whole(value: object) -> int | None:
    """Below 0 counts as 0, over MOST_TOKENS as not told."""
    if value is None:
        return None
    if type(value) is int:
        return max(0, value) if value <= MOST_TOKENS else None
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        whole = int(float(value))
    except (ValueError, OverflowError):
        return None
    return max(0, whole) if whole <= MOST_TOKENS else None


def of_events(content_type: str) -> bool:
    """Whether a response of this type is a stream of server-sent events."""
    return "text/event-stream" in content_type.lower()


def usage_reader(content_type: str, dialect: Dialect) -> ResponseReader:
    """The content type of the response decides, not what the request asked for."""
    return EventUsage(dialect) if of_events(content_type) else BodyUsage(dialect)


class Unread:
    """Reads nothing."""

    __slots__ = ("complete", "events", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.complete = False

    def feed(self, piece: bytes) -> None:
        pass

    def end(self) -> None:
        pass


class BodyUsage:
    """One JSON document, kept until it ends."""

    __slots__ = ("_bytes", "_dialect", "_pieces", "complete", "events", "usage")

    def __init__(self, dialect: Dialect) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.complete = False
        self._dialect = dialect
        self._pieces: list[bytes] = []
        self._bytes = 0

    def feed(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if self._bytes <= MAX_BODY_BYTES:
            self._pieces.append(piece)
        else:
            self._pieces = []

    def end(self) -> None:
        # Joining one piece copies nothing, and most documents come in one.
        body, self._pieces = b"".join(self._pieces), []
        # The counts stand near the end.
        if body.rfind(self._dialect.mark) >= 0:
            self.usage = _read(self.usage, self._dialect.of_body, body)


STOP: Final = b'{"type":"message_stop"}'
"""The last event of an Anthropic stream, which has no [DONE]."""
SPACES: Final = 2
"""In STOP, at most."""
SHORT_EVENT: Final = len(STOP) + SPACES + len(b"data: \n\n")


class EventUsage:
    """Server-sent events; only lines that bear the mark are decoded."""

    __slots__ = ("_dialect", "_lines", "complete", "events", "usage")

    def __init__(self, dialect: Dialect) -> None:
        self.usage: Usage | None = None
        self.events = 0
        self.complete = False
        self._dialect = dialect
        self._lines = Lines()

    def feed(self, piece: bytes) -> None:
        if self._is_one_event(piece):
            self.events += 1
            self.complete = False
        elif self._tells_nothing(piece):
            if events := piece.count(b"\ndata:") + piece.startswith(b"data:"):
                self.events += events
                self.complete = False
        else:
            for line, whole in self._lines.feed(piece):
                if whole:
                    self._line(line)

    def _is_one_event(self, piece: bytes) -> bool:
        """Whether this is one event that holds an object without counts and longer than STOP: nearly every piece."""
        return (
            piece.startswith(b"data: {")
            and piece.endswith(b"}\n\n")
            and SHORT_EVENT < len(piece) <= MAX_LINE_BYTES
            and piece.find(b"\n") == len(piece) - 2
            and piece.find(self._dialect.mark) < 0
            and self._lines.empty
        )

    def _tells_nothing(self, piece: bytes) -> bool:
        """Whether these are whole lines with neither counts nor an end among them. They need not be cut apart, only
        counted."""
        # `find` takes half the time of `in`, which tries bytes as a number first.
        return (
            piece.endswith(b"\n")
            and piece.find(self._dialect.mark) < 0
            and piece.find(b"[DONE]") < 0
            and piece.find(b"message_stop") < 0
            and self._lines.empty
            and len(piece) <= MAX_LINE_BYTES
        )

    def end(self) -> None:
        for line, _ in self._lines.end():
            self._line(line)

    def _line(self, line: bytes) -> None:
        text = event_text(line)
        if text is None:
            return
        if text == b"[DONE]":
            self.complete = True
            return
        self.events += 1
        self.complete = len(text) <= len(STOP) + SPACES and text.replace(b" ", b"") == STOP
        if text.rfind(self._dialect.mark) >= 0:
            self.usage = _read(self.usage, self._dialect.of_event, text)


def _read(known: Usage | None, block_of: Callable[[bytes], Block], text: bytes) -> Usage | None:
    try:
        return merged(known, block_of(text))
    except MALFORMED:
        return known
