"""One ext_proc stream as a state machine without I/O.

`receive` turns Envoy's message into what must happen next: an event to act on (Pick, Head, Piece, End), or answers to
send. Whoever drives it acts on the event and asks the stream for the answers (`forwarded`, `piece_seen`, `ended`,
`refused`), so that their shape and order follow the body mode Envoy announced. Rules:

- The body modes come with the first message (`protocol_config`); absent means full duplex.
- Full duplex: the headers' answer is held until the whole body is here and the endpoint chosen; then headers, pieces,
  trailers. Buffered: headers pass at once and the body's answer carries the routing. Streamed and none: the endpoint is
  chosen from the headers alone; streamed pieces get empty answers.
- An upgraded connection (websocket) has no end to wait for: its endpoint too is chosen from the headers, and what the
  client sends afterwards is passed on as it comes.
- Envoy may send the end of a body twice; what follows the first end is ignored.
- `observability_mode`: nothing is ever answered, and nothing picked.
"""

from __future__ import annotations

from typing import Final

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from epp.extproc import replies
from epp.extproc.events import (
    BODY,
    DONE,
    FORWARDED,
    PICKING,
    RESPONSE,
    START,
    WATCHING,
    End,
    Event,
    Head,
    Pick,
    Piece,
    State,
)  # fmt: skip
from epp.extproc.faults import ProtocolError
from epp.extproc.held import HeldBytes
from epp.extproc.wire import NO_METADATA, Message
from epp.headers import Metadata, Received
from epp.rules import Forward
from epp.types import Refused

NONE: Final[int] = ProcessingMode.NONE
STREAMED: Final[int] = ProcessingMode.STREAMED
BUFFERED: Final[int] = ProcessingMode.BUFFERED
BUFFERED_PARTIAL: Final[int] = ProcessingMode.BUFFERED_PARTIAL
DUPLEX: Final[int] = ProcessingMode.FULL_DUPLEX_STREAMED
"""The body modes there are, 0 to 4."""
SMALL_BYTES: Final = 1_024
NO_HEADERS: Final[Received] = {}
Answers = list[bytes]
"""Messages on the wire."""


class Stream:
    """The state of one stream. Not thread-safe; `close` gives the held bytes back, however it ended."""

    __slots__ = (
        "_body", "_bytes", "_headers", "_held", "_metadata", "_owed", "_passing", "_request_mode", "_response_mode",
        "_trailers", "state",
    )  # fmt: skip

    def __init__(self, held: HeldBytes) -> None:
        self.state = START
        self._held = held
        self._request_mode = DUPLEX
        self._response_mode = DUPLEX
        self._headers: Received = NO_HEADERS
        self._metadata: Metadata = NO_METADATA
        self._body: list[bytes | bytearray] = []
        self._bytes = 0
        self._owed = 0
        """Streamed pieces that came before the headers were answered."""
        self._passing = False
        """An upgraded connection: request pieces go straight through."""
        self._trailers = False
        """Request trailers came and wait for their answer."""

    def receive(self, message: Message) -> tuple[Event, Answers]:
        """What `message` asks for, and answers that can go out at once. Raises ProtocolError or Refused(413, 503)."""
        if message.observing and self.state is START:
            self.state = WATCHING
        state, kind = self.state, message.kind
        if state is DONE or state is WATCHING:
            return None, []
        if kind in ("request_body", "request_headers", "request_trailers"):
            return self._on_request(state, message)
        return self._on_response(state, message)

    def _on_request(self, state: State, message: Message) -> tuple[Event, Answers]:
        kind = message.kind
        if kind == "request_headers":
            if state is START:
                return self._on_request_headers(message)
        elif state is BODY:
            return self._on_request_body(message) if kind == "request_body" else self._on_request_trailers()
        elif state is PICKING:
            return self._on_early_piece() if kind == "request_body" else self._on_early_trailers()
        elif state is FORWARDED or state is RESPONSE:
            return None, self._late_piece(message) if kind == "request_body" else [replies.trailers("request_trailers")]
        raise _unexpected(state, message)

    def _on_response(self, state: State, message: Message) -> tuple[Event, Answers]:
        kind = message.kind
        if kind == "response_headers":
            return self._on_response_headers(message) if state is not RESPONSE else (None, [])
        if state is RESPONSE:
            if kind == "response_body":
                return Piece(message.body, message.end), []
            if kind == "response_trailers":
                return End(), []
        raise _unexpected(state, message)

    def forwarded(self, forward: Forward) -> Answers:
        """The answers that send the request on its way."""
        body, bodiless = forward.body, forward.bodiless
        if body is None:
            body = self._take_body()
        self._body.clear()
        self._headers, self._metadata = NO_HEADERS, NO_METADATA
        self.state = FORWARDED
        mode = self._request_mode
        if not bodiless and mode in (BUFFERED, BUFFERED_PARTIAL):
            return self._owed_trailers([replies.routed_body(forward, len(body))])
        answers = [replies.routed_headers(forward, len(body))]
        if mode == DUPLEX and not bodiless and not self._passing:
            last = not self._trailers
            answers += replies.pieces("request_body", body, end=last, even_empty=last)
        if self._owed:
            answers += [replies.untouched("request_body") for _ in range(self._owed)]
            self._owed = 0
        return self._owed_trailers(answers)

    def refused(self, refusal: Refused) -> Answers:
        """The one answer that ends the request here; the stream is over."""
        self.close()
        self.state = DONE
        return [replies.refused(refusal)]

    def leave(self) -> bool:
        """After `forwarded`: say nothing more, the response goes by unseen. False where pieces still need answers."""
        if self._passing or self._request_mode in (STREAMED, BUFFERED_PARTIAL):
            return False
        self.close()
        self.state = DONE
        return True

    @property
    def sends_on(self) -> bool:
        """True while each piece of the response is answered with itself."""
        return self.state is RESPONSE and self._response_mode == DUPLEX

    def piece_seen(self, given: bytes, body: bytes, end: bool) -> Answers:
        """The answer to Piece; `body` is what the client gets instead of the bytes given."""
        if self._response_mode == DUPLEX:
            return replies.pieces("response_body", body, end=end, even_empty=end or not given)
        if body == given:
            return [replies.untouched("response_body")]
        return [replies.replaced_body(body, fixed=self._response_mode != STREAMED)]

    def ended(self, rest: bytes) -> Answers:
        """The answer to End; `rest` are body bytes held back until now."""
        held_back = rest if self._response_mode == DUPLEX else b""
        answers = replies.pieces("response_body", held_back, end=False, even_empty=False)
        answers.append(replies.trailers("response_trailers"))
        return answers

    def sent(self) -> None:
        """The answers are with Envoy: a request on its way holds nothing any more."""
        if self._bytes and (self.state is FORWARDED or self.state is RESPONSE):
            self._release()

    def close(self) -> None:
        """Give back what is held. Further calls do nothing."""
        self._body.clear()
        self._release()

    def _release(self) -> None:
        if self._bytes > 0:
            self._held.give(self._bytes)
        self._bytes = 0

    def _keep(self, piece: bytes) -> None:
        """Small pieces, but for the first, are copied together: an object each would cost many times their bytes."""
        if len(piece) >= SMALL_BYTES or not self._body:
            self._body.append(piece)
            return
        last = self._body[-1]
        if isinstance(last, bytearray):
            last += piece
        else:
            self._body.append(bytearray(piece))

    def _take_body(self) -> bytes:
        return b"".join(self._body)

    def _owed_trailers(self, answers: Answers) -> Answers:
        if self._trailers:
            self._trailers = False
            answers.append(replies.trailers("request_trailers"))
        return answers

    def _complete(self, *, body: bool, bodiless: bool = False) -> tuple[Event, Answers]:
        self.state = PICKING
        whole: bytes | None = None
        if body:
            whole = self._take_body()
            if len(self._body) > 1:
                self._body = [whole]
        else:
            self._body.clear()
        return Pick(self._headers, self._metadata, whole, bodiless), []

    def _on_request_headers(self, message: Message) -> tuple[Event, Answers]:
        if message.modes is not None:
            request_mode, response_mode = message.modes
            self._request_mode, self._response_mode = _supported(request_mode), _supported(response_mode)
        self._headers, self._metadata = message.headers, message.metadata
        if message.end:
            return self._complete(body=False, bodiless=True)
        self._passing = "upgrade" in message.headers
        if self._passing or self._request_mode in (NONE, STREAMED):
            return self._complete(body=False)
        self.state = BODY
        return None, [] if self._request_mode == DUPLEX else [replies.untouched("request_headers")]

    def _on_request_body(self, message: Message) -> tuple[Event, Answers]:
        piece = message.body
        if piece:
            self._held.take(len(piece), self._bytes)
            self._bytes += len(piece)
            self._keep(piece)
        if message.metadata:
            self._metadata = {**self._metadata, **message.metadata}
        end = message.end
        if self._request_mode == BUFFERED_PARTIAL and not end:
            # Longer than Envoy's buffer: the rest passes by unseen, so what is here is no body to read.
            return self._complete(body=False)
        return self._complete(body=True) if end or self._request_mode == BUFFERED else (None, [])

    def _on_request_trailers(self) -> tuple[Event, Answers]:
        self._trailers = True
        return self._complete(body=True)

    def _on_early_piece(self) -> tuple[Event, Answers]:
        self._owed += self._request_mode == STREAMED
        return None, []

    def _on_early_trailers(self) -> tuple[Event, Answers]:
        self._trailers = True
        return None, []

    def _late_piece(self, message: Message) -> Answers:
        if self._request_mode == DUPLEX and self._passing:
            return replies.pieces("request_body", message.body, end=message.end, even_empty=True)
        return [replies.untouched("request_body")] if self._request_mode == STREAMED else []

    def _on_response_headers(self, message: Message) -> tuple[Event, Answers]:
        # Before the pick this is a local answer of the proxy: the request went nowhere.
        self.close()
        self.state = RESPONSE
        return Head(message.headers, message.metadata, message.end), []


def _supported(mode: int) -> int:
    if not NONE <= mode <= DUPLEX:
        raise ProtocolError(f"body mode {mode} is not supported; use FULL_DUPLEX_STREAMED or BUFFERED")
    return mode


def _unexpected(state: State, message: Message) -> ProtocolError:
    return ProtocolError(f"{message.kind or 'an empty message'} is not expected in state {state.value}")
