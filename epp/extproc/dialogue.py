"""One ext_proc stream, between a transport and the route: bytes in, bytes out, no I/O.

Every transport drives this class and nothing else, so all of them mean the same.
"""

from __future__ import annotations

from collections.abc import Awaitable

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError

from epp.exchange import Exchange
from epp.extproc.held import HeldBytes
from epp.extproc.stream import Answers, End, Event, Head, Pick, Piece, ProtocolError, State, Stream
from epp.route import Router
from epp.rules import Forward
from epp.types import Refused


class Dialogue:
    """Feed it each message with `receive`, write what that returns, say `sent`; `close` it when the stream is over."""

    __slots__ = ("_exchange", "_router", "_stream")

    def __init__(self, router: Router, held: HeldBytes) -> None:
        self._router = router
        self._stream = Stream(held)
        self._exchange: Exchange | None = None

    def receive(self, wire: bytes) -> list[bytes] | Awaitable[list[bytes]]:
        """The messages to send, in order, or a coroutine for them. Raises ProtocolError; then close with an error."""
        try:
            message = ProcessingRequest.FromString(wire)
        except DecodeError as error:
            raise ProtocolError(f"not a ProcessingRequest: {error}") from None
        if self._exchange is None:
            self._exchange = self._router.open()
        try:
            event, answers = self._stream.receive(message)
            if event is None:
                return _wire(answers)
            if isinstance(event, Pick):
                forward = self._router.pick(self._exchange, event.headers, event.metadata, event.body, event.bodiless)
                return _wire(self._forward(forward)) if isinstance(forward, Forward) else self._later(forward)
            return _wire(self._response(self._exchange, event))
        except Refused as refusal:
            return _wire(self._refuse(refusal))

    def sent(self) -> None:
        """What `receive` returned has been written: bytes held for it are given back."""
        self._stream.sent()

    @property
    def over(self) -> bool:
        """True once nothing more will be said: the transport may end the stream."""
        return self._stream.state is State.DONE

    def close(self, cause: str) -> None:
        """The stream is over, however that came: give everything back. `cause` counts unless the response was done."""
        self._stream.close()
        if self._exchange is not None:
            self._exchange.settle(cause)

    async def _later(self, forward: Awaitable[Forward]) -> list[bytes]:
        try:
            return _wire(self._forward(await forward))
        except Refused as refusal:
            return _wire(self._refuse(refusal))

    def _forward(self, forward: Forward) -> Answers:
        return self._stream.forwarded(forward)

    def _refuse(self, refusal: Refused) -> Answers:
        if self._exchange is not None:
            self._exchange.refuse(refusal)
        return self._stream.refused(refusal, {})

    def _response(self, exchange: Exchange, event: Event) -> Answers:
        match event:
            case Head(headers, metadata, end):
                to_set, remove = exchange.head(headers, metadata, end)
                return self._stream.head_seen(to_set, remove, exchange.settle("natural") if end else {})
            case Piece(body, end):
                mapped = exchange.piece(body, end)
                return self._stream.piece_seen(event, mapped, exchange.settle("natural") if end else {})
            case End():
                rest = exchange.trailers()
                return self._stream.ended(rest, exchange.settle("natural"))
        return []


def _wire(answers: Answers) -> list[bytes]:
    return [answer.SerializeToString() for answer in answers]
