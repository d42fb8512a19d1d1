"""One ext_proc stream, between a transport and the route: bytes in, bytes out, no I/O.

Every transport drives this class and nothing else, so all of them mean the same. Pieces of a response, nearly all the
messages there are, take a short way of their own: they are not made into messages, and what goes back is what came,
wrapped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from google.protobuf.message import DecodeError

from epp.desk import Desk
from epp.exchange import Exchange, HeadAnswer
from epp.extproc import replies, wire
from epp.extproc.events import DONE, Event, Head, Pick, Piece
from epp.extproc.faults import ProtocolError
from epp.extproc.held import HeldBytes
from epp.extproc.stream import Answers, Stream
from epp.rules import Forward
from epp.types import UNSEEN, Evicted, Refused

Told = TypeVar("Told")


class Dialogue:
    """Feed it each message with `receive`, write what that returns, say `sent`; `close` it when the stream is over."""

    __slots__ = ("_desk", "_exchange", "_read", "_stream", "_wrapped", "push")

    def __init__(self, desk: Desk, held: HeldBytes) -> None:
        self._desk = desk
        self._stream = Stream(held)
        self._exchange: Exchange | None = None
        self._wrapped = self._read = 0
        """Pieces of the response that went the short way, and the long one."""
        self.push: Callable[[Answers], None] | None = None
        """Sends what was not asked for; set by the transport."""

    def receive(self, message: bytes) -> list[bytes] | Awaitable[list[bytes]]:
        """The messages to send, in order, or a coroutine for them. Raises ProtocolError; then close with an error."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._begin()
        elif self._stream.sends_on:
            piece = wire.piece(message)
            if piece is not None:
                return self._pass_on(exchange, piece)
        try:
            read = wire.read(message)
        except DecodeError as error:
            raise ProtocolError(f"not a ProcessingRequest: {error}") from None
        try:
            event, answers = self._stream.receive(read)
            if event is None:
                return answers
            return self._pick(exchange, event) if isinstance(event, Pick) else self._response(exchange, event)
        except Refused as refusal:
            return self._refuse(refusal)

    def sent(self) -> None:
        """What `receive` returned has been written: bytes held for it are given back."""
        self._stream.sent()

    @property
    def over(self) -> bool:
        """True once nothing more will be said: the transport may end the stream."""
        return self._stream.state is DONE

    def close(self, cause: str) -> None:
        """The stream is over, however that came: give everything back. `cause` counts unless the response was done."""
        self._stream.close()
        self.push = None
        if self._wrapped or self._read:
            self._desk.passed(self._wrapped, self._read)
            self._wrapped = self._read = 0
        if self._exchange is not None:
            self._exchange.settle(cause)

    def _begin(self) -> Exchange:
        exchange = self._exchange = Exchange(self._desk)
        if self._desk.evicts:
            exchange.books.evicted = self._evict
        return exchange

    def _pick(self, exchange: Exchange, event: Pick) -> Answers | Awaitable[Answers]:
        forward = exchange.pick(event.headers, event.metadata, event.body, event.bodiless)
        return self._forwarded(forward) if isinstance(forward, Forward) else self._later(forward, self._forwarded)

    def _forwarded(self, forward: Forward) -> Answers:
        if self._desk.habits.whole_response:
            return self._stream.forwarded(forward)
        return self._forwarded_alone(forward)

    async def _later(self, told: Awaitable[Told], go: Callable[[Told], Answers | Awaitable[Answers]]) -> Answers:
        """`go` on once it is told."""
        try:
            answers = go(await told)
            return answers if isinstance(answers, list) else await answers
        except Refused as refusal:
            return self._refuse(refusal)

    def _forwarded_alone(self, forward: Forward) -> Answers:
        """The request goes on its way and its response unseen, unless the client's name for the model must be put back.

        The end of the stream has to leave with the last answer: what Envoy sends us of the response before it knows
        would be lost.
        """
        answers = self._stream.forwarded(forward)
        if not forward.model and self._exchange is not None and self._stream.leave():
            self._exchange.settle(UNSEEN)
        return answers

    def _evict(self) -> None:
        """The request is ended for a more important one: the client hears it, unless all has been said."""
        if self._exchange is None or self.push is None or self.over:
            return
        self._exchange.settle("evicted")
        self.push(self._stream.refused(Evicted()))

    def _refuse(self, refusal: Refused) -> Answers:
        if self._exchange is not None:
            self._exchange.refuse(refusal)
        return self._stream.refused(refusal)

    def _pass_on(self, exchange: Exchange, piece: wire.Piece) -> Answers | Awaitable[Answers]:
        sent_on, body, end = piece
        mapped = exchange.piece(body, end)
        if mapped is body and len(sent_on) <= replies.CHUNK_BYTES:
            self._wrapped += 1
            answers = [replies.wrapping("response_body", len(sent_on)) + sent_on]
        else:
            self._read += 1
            answers = self._stream.piece_seen(body, mapped, end)
        return self._last(exchange, answers) if end else answers

    def _response(self, exchange: Exchange, event: Event) -> Answers | Awaitable[Answers]:
        if isinstance(event, Head):
            told = exchange.head(event.headers, event.metadata, event.end)
            if isinstance(told, tuple):
                return self._head_seen(event.end, told)
            return self._later(told, partial(self._head_seen, event.end))
        if isinstance(event, Piece):
            self._read += 1
            answers = self._stream.piece_seen(event.body, exchange.piece(event.body, event.end), event.end)
            return self._last(exchange, answers) if event.end else answers
        return self._last(exchange, self._stream.ended(exchange.trailers()))

    def _head_seen(self, end: bool, changes: HeadAnswer) -> Answers | Awaitable[Answers]:
        set_headers, remove = changes
        answers = [replies.response_headers(set_headers, remove)]
        return answers if not end or self._exchange is None else self._last(self._exchange, answers)

    def _last(self, exchange: Exchange, answers: Answers) -> Answers | Awaitable[Answers]:
        """The answers, with what is told at the end of the request."""
        told = exchange.settle("natural")
        if isinstance(told, dict):
            return replies.with_metadata(answers, told) if told else answers
        return self._later(told, partial(replies.with_metadata, answers))
