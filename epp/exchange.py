"""The half of a request that Envoy's messages reach: reads its body, its response, and tells the books of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from epp.bodies.parsed import Parsed, Parser, ResponseReader
from epp.bodies.registry import Parsers, request_path
from epp.bodies.rewrite import ModelMapper, set_model
from epp.bodies.usage import EventUsage, of_events
from epp.desk import Books, Desk
from epp.headers import LOAD_REPORT, SERVICE_TIME, Metadata, OwnMetadata, Received
from epp.rules import Asked, Forward
from epp.types import UNSEEN, Outcome, Refused

FAST_S: Final = 0.5
"""No response within so long after the pick means that the endpoint failed: an engine that refuses or drops
connections fails at once, a client that leaves waited longer. Only Envoy before 1.37 ends such a stream without a word,
later ones say 503."""
OUR_DOING: Final = frozenset((UNSEEN, "evicted"))
"""Causes of an end before any response that say nothing of the endpoint."""
HeadAnswer = tuple[dict[str, str], tuple[str, ...]]
"""Headers to set besides our mark, headers to remove."""


class Exchange:
    """Belongs to one stream. `settle` tells of the end exactly once, whatever ended the request."""

    __slots__ = (
        "_bytes", "_desk", "_ended", "_failure", "_first_at", "_forward", "_forwarded_at", "_gap", "_head_at",
        "_last_at", "_mapper", "_model", "_now", "_parser", "_parsers", "_pieces", "_reader", "_settled", "_sse",
        "_status", "_work_s", "books", "received_at",
    )  # fmt: skip

    def __init__(self, desk: Desk) -> None:
        """A request's headers have arrived."""
        self._now = desk.now
        self.received_at = self._now()
        self.books: Books = desk.open(self.received_at)
        self._desk = desk
        self._parsers: Parsers = desk.parsers
        """Those in force when the request came: a reload does not change them half-way."""
        self._forward: Forward | None = None
        """The answer, once the request is on its way."""
        self._forwarded_at = 0.0
        self._model = ""
        """As the client named it."""
        self._parser: Parser | None = None
        self._reader: ResponseReader | None = None
        self._mapper: ModelMapper | None = None
        self._status = 0
        self._sse = False
        self._first_at: float | None = None
        self._last_at = 0.0
        self._head_at = 0.0
        """The response's headers came; 0 = not yet."""
        self._work_s = 0.0
        """Spent on the pieces of an event stream."""
        self._gap: Callable[[float], None] | None = None
        self._bytes = 0
        self._pieces = 0
        self._failure = ""
        self._ended = False
        self._settled = False

    # ---- the request

    def pick(
        self, headers: Received, metadata: Metadata, body: bytes | None, bodiless: bool
    ) -> Forward | Awaitable[Forward]:
        """Read the request and have its endpoint chosen. Raises Refused, or returns an awaitable that may."""
        forward = self.books.pick(self._asked(headers, metadata, body, bodiless))
        return self._forwarded(forward, body) if isinstance(forward, Forward) else self._later(forward, body)

    def refuse(self, refusal: Refused) -> None:
        """The request ends here. Further calls do nothing."""
        if self._forward is not None:
            # A hook refused the engine's answer: the request was under way and is counted as such.
            self.settle("error")
        elif not self._settled:
            self._settled = True
            self.books.refuse(refusal)

    def _asked(self, headers: Received, metadata: Metadata, body: bytes | None, bodiless: bool) -> Asked:
        path = request_path(headers)
        if body is None:
            # The mode hides it, or there is none: only the headers count.
            return Asked(headers, metadata, path, Parsed("raw"), bodiless=bodiless)
        try:
            parser = self._parsers.find(path)
            parsed = parser.parse(body, path, headers)
        except Refused as refusal:
            refusal.by = refusal.by or "parser"
            return Asked(headers, metadata, path, Parsed("raw"), refusal=refusal)
        self._model = parsed.model
        self._parser = None if parsed.skip_response else parser
        return Asked(headers, metadata, path, parsed, len(body))

    def _forwarded(self, forward: Forward, body: bytes | None) -> Forward:
        self._forwarded_at = self._now()
        self._forward = forward
        if forward.model and body is not None:
            return forward.carrying(set_model(body, forward.model))
        return forward

    async def _later(self, forward: Awaitable[Forward], body: bytes | None) -> Forward:
        return self._forwarded(await forward, body)

    # ---- the response

    def head(self, headers: Received, metadata: Metadata, end: bool) -> HeadAnswer | Awaitable[HeadAnswer]:
        """The response's headers are here; returns headers to set and to remove, or an awaitable for them."""
        self._status = _status(headers)
        self._head_at = self._now()
        self._ended = end
        if self._forward is None:
            return {}, ()
        if self._status >= 500:
            # Envoy's own 503 lacks the header that an engine's answer has.
            local = self._status == 503 and SERVICE_TIME not in headers
            self._failure = "connect" if local else "5xx"
        if not end:
            self._begin_reading(headers, self._forward.model)
        told = self.books.head(headers, metadata, self._failure)
        remove = self._unwanted(headers)
        return (self._with_own(told), remove) if isinstance(told, dict) else self._head_later(told, remove)

    def piece(self, body: bytes, end: bool) -> bytes:
        """A piece of the response; returns what the client gets."""
        self._ended = end
        size = len(body)
        if size:
            self._observe_piece(size)
        reader = self._reader
        if isinstance(reader, EventUsage):
            # The same, where compiled as a plain call: nearly every piece comes by here.
            reader.feed(body)
        elif reader is not None:
            reader.feed(body)
        mapper = self._mapper
        if mapper is not None:
            body = mapper.feed(body) + mapper.end() if end else mapper.feed(body)
        if self._sse and size:
            self._work_s += self._now() - self._last_at
        return body

    def trailers(self) -> bytes:
        """The response ended with trailers; returns body bytes held back until now."""
        self._ended = True
        return b"" if self._mapper is None else self._mapper.end()

    def settle(self, cause: str) -> OwnMetadata | Awaitable[OwnMetadata]:
        """The request is over; `cause` as in Outcome. Further calls do nothing.

        Returns dynamic metadata for the response's last message, if there still is one. Who drops an awaitable for it
        loses nothing else.
        """
        if self._settled:
            return {}
        self._settled = True
        silent = self._status == 0 and self._forward is not None and cause not in OUR_DOING
        if silent and self._now() - self._forwarded_at < FAST_S:
            self._failure = "missing"
        return self.books.settle(self._outcome(cause))

    def _begin_reading(self, headers: Received, model: str) -> None:
        content_type = _last(headers, "content-type")
        self._sse = of_events(content_type)
        if self._parser is None:
            return
        self._reader = self._parser.reader(content_type)
        if model and self._model:
            self._mapper = ModelMapper(model, self._model, self._sse)

    def _unwanted(self, headers: Received) -> tuple[str, ...]:
        """What the client must not get: the length of a body whose name for the model changes, and the engine's load
        report if we asked for one."""
        stale = () if self._mapper is None else ("content-length",)
        reported = self._desk.habits.load_report and _last(headers, LOAD_REPORT)
        return (*stale, LOAD_REPORT) if reported else stale

    async def _head_later(self, told: Awaitable[dict[str, str]], remove: tuple[str, ...]) -> HeadAnswer:
        return self._with_own(await told), remove

    def _with_own(self, told: dict[str, str]) -> dict[str, str]:
        """What hooks told, and what was settled with the answer."""
        own = None if self._forward is None else self._forward.response_headers
        return {**told, **own} if own else told

    def _outcome(self, cause: str) -> Outcome:
        reader = self._reader
        if reader is not None:
            reader.end()
        # The response has come to its own end, or the engine said that it has.
        natural = self._ended or (reader is not None and reader.complete)
        now = self._now()
        return Outcome(
            usage=None if reader is None else reader.usage,
            status=self._status,
            cause="natural" if natural else cause,
            ttft_s=None if self._first_at is None else self._first_at - self.received_at,
            duration_s=now - self.received_at,
            streamed=self._sse,
            response_bytes=self._bytes,
            failure=self._failure,
            pieces=reader.events or self._pieces if reader is not None else self._pieces,
            work_s=self._work_s if self._sse or not self._head_at else now - self._head_at,
        )

    def _observe_piece(self, size: int) -> None:
        now = self._now()
        self._bytes += size
        self._pieces += 1
        if self._gap is not None:
            self._gap(now - self._last_at)
        elif self._first_at is None:
            self._first_at = now
            self.books.first_piece()
        elif self._sse:
            self._gap = self.books.gaps()
            self._gap(now - self._last_at)
        self._last_at = now


def _last(headers: Received, name: str) -> str:
    """The last value of a header, "" if it is absent."""
    values = headers.get(name)
    return values[-1] if values else ""


def _status(headers: Received) -> int:
    text = _last(headers, ":status")
    if text == "200":
        return 200
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
