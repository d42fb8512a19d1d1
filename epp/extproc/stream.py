"""One ext_proc stream as a state machine: a table, no I/O.

`receive` turns Envoy's message into what must happen next: an event to act on (Pick, Head, Piece, End), or answers to
send. Whoever drives it acts on the event and asks the stream for the answers (`forwarded`, `head_seen`, `piece_seen`,
`ended`, `refused`), so that their shape and order follow the body mode Envoy announced. Rules:

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

from collections.abc import Callable, Mapping
from enum import StrEnum

from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from msgspec import Struct

from epp.extproc import replies
from epp.extproc.faults import ProtocolError
from epp.extproc.held import HeldBytes
from epp.extproc.wire import Message
from epp.headers import Headers, Metadata
from epp.rules import Forward
from epp.types import Refused

NONE = ProcessingMode.NONE
STREAMED = ProcessingMode.STREAMED
BUFFERED = ProcessingMode.BUFFERED
BUFFERED_PARTIAL = ProcessingMode.BUFFERED_PARTIAL
DUPLEX = ProcessingMode.FULL_DUPLEX_STREAMED
KNOWN_MODES = (NONE, STREAMED, BUFFERED, BUFFERED_PARTIAL, DUPLEX)


class State(StrEnum):
    """Where the stream is."""

    START = "start"
    BODY = "body"
    """Collecting the request's body."""
    PICKING = "picking"
    """The request is complete; its answer is being decided."""
    FORWARDED = "forwarded"
    """The request is on its way; the response is awaited."""
    RESPONSE = "response"
    DONE = "done"
    """Refused, or left: nothing more is said."""
    WATCHING = "watching"
    """Observability mode: nothing is answered."""


class Pick(Struct, frozen=True):
    """The request is complete: choose an endpoint. `body` is None where the mode does not show it or there is none."""

    headers: Headers
    metadata: Metadata
    body: bytes | None
    bodiless: bool


class Head(Struct, frozen=True):
    """The response's headers are here."""

    headers: Headers
    metadata: Metadata
    end: bool


class Piece(Struct, frozen=True):
    """A piece of the response's body."""

    body: bytes
    end: bool


class End(Struct, frozen=True):
    """The response ended with trailers."""


Event = Pick | Head | Piece | End | None
Answers = list[bytes]
"""Messages on the wire."""


class Stream:
    """The state of one stream. Not thread-safe; `close` gives the held bytes back, however it ended."""

    __slots__ = (
        "_body", "_bytes", "_headers", "_held", "_metadata", "_owed", "_passing", "_request_mode", "_response_mode",
        "_trailers", "state",
    )  # fmt: skip

    def __init__(self, held: HeldBytes) -> None:
        self.state = State.START
        self._held = held
        self._request_mode: int = DUPLEX
        self._response_mode: int = DUPLEX
        self._headers: Headers = {}
        self._metadata: Metadata = {}
        self._body: list[bytes] = []
        self._bytes = 0
        self._owed = 0
        """Streamed pieces that came before the headers were answered."""
        self._passing = False
        """An upgraded connection: request pieces go straight through."""
        self._trailers = False
        """Request trailers came and wait for their answer."""

    def receive(self, message: Message) -> tuple[Event, Answers]:
        """What `message` asks for, and answers that can go out at once. Raises ProtocolError or Refused(413, 503)."""
        if message.observing and self.state is State.START:
            self.state = State.WATCHING
        if self.state in _DEAF:
            return None, []
        action = TABLE.get((self.state, message.kind))
        if action is None:
            raise ProtocolError(f"{message.kind or 'an empty message'} is not expected in state {self.state.value}")
        return action(self, message)

    def forwarded(self, forward: Forward) -> Answers:
        """The answers that send the request on its way."""
        sent = self._take_body() if forward.body is None else forward.body
        self._body = []
        self._headers, self._metadata = {}, {}
        self.state = State.FORWARDED
        if self._request_mode in {BUFFERED, BUFFERED_PARTIAL} and not forward.bodiless:
            return self._owed_trailers([replies.routed_body(forward, len(sent))])
        answers = [replies.routed_headers(forward, len(sent))]
        if self._request_mode == DUPLEX and not forward.bodiless and not self._passing:
            answers += replies.pieces("request_body", sent, end=not self._trailers, even_empty=not self._trailers)
        answers += [replies.untouched("request_body") for _ in range(self._owed)]
        self._owed = 0
        return self._owed_trailers(answers)

    def refused(self, refusal: Refused, headers: Mapping[str, str]) -> Answers:
        """The one answer that ends the request here; the stream is over."""
        self.close()
        self.state = State.DONE
        return [replies.refused(refusal, headers)]

    def leave(self) -> bool:
        """After `forwarded`: say nothing more, the response goes by unseen. False where pieces still need answers."""
        if self._passing or self._request_mode in {STREAMED, BUFFERED_PARTIAL}:
            return False
        self.close()
        self.state = State.DONE
        return True

    @property
    def sends_on(self) -> bool:
        """True while each piece of the response is answered with itself."""
        return self.state is State.RESPONSE and self._response_mode == DUPLEX

    def head_seen(self, set_headers: Mapping[str, str], remove: tuple[str, ...], metadata: Metadata) -> Answers:
        """The answer to Head."""
        return replies.with_metadata([replies.response_headers(set_headers, remove)], metadata)

    def piece_seen(self, given: Piece, body: bytes, metadata: Metadata) -> Answers:
        """The answer to Piece; `body` is what the client gets instead of its bytes."""
        if self._response_mode == DUPLEX:
            answers = replies.pieces("response_body", body, end=given.end, even_empty=given.end or not given.body)
        elif body == given.body:
            answers = [replies.untouched("response_body")]
        else:
            answers = [replies.replaced_body(body, fixed=self._response_mode != STREAMED)]
        return replies.with_metadata(answers, metadata)

    def ended(self, rest: bytes, metadata: Metadata) -> Answers:
        """The answer to End; `rest` are body bytes held back until now."""
        held_back = rest if self._response_mode == DUPLEX else b""
        answers = replies.pieces("response_body", held_back, end=False, even_empty=False)
        return replies.with_metadata([*answers, replies.trailers("response_trailers")], metadata)

    def sent(self) -> None:
        """The answers are with Envoy: a request on its way holds nothing any more."""
        if self._bytes and (self.state is State.FORWARDED or self.state is State.RESPONSE):
            self._release()

    def close(self) -> None:
        """Give back what is held. Further calls do nothing."""
        self._body = []
        self._release()

    def _release(self) -> None:
        if self._bytes > 0:
            self._held.give(self._bytes)
        self._bytes = 0

    def _take_body(self) -> bytes:
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def _owed_trailers(self, answers: Answers) -> Answers:
        if self._trailers:
            self._trailers = False
            answers.append(replies.trailers("request_trailers"))
        return answers

    def _complete(self, *, body: bool, bodiless: bool = False) -> tuple[Event, Answers]:
        self.state = State.PICKING
        whole = self._take_body() if body else None
        self._body = [] if whole is None else [whole]
        return Pick(self._headers, self._metadata, whole, bodiless), []

    def _on_request_headers(self, message: Message) -> tuple[Event, Answers]:
        if message.modes is not None:
            self._request_mode, self._response_mode = message.modes
            for mode in message.modes:
                if mode not in KNOWN_MODES:
                    raise ProtocolError(f"body mode {mode} is not supported; use FULL_DUPLEX_STREAMED or BUFFERED")
        self._headers, self._metadata = message.headers, message.metadata
        if message.end:
            return self._complete(body=False, bodiless=True)
        self._passing = "upgrade" in self._headers
        if self._passing or self._request_mode in {NONE, STREAMED}:
            return self._complete(body=False)
        self.state = State.BODY
        return None, [] if self._request_mode == DUPLEX else [replies.untouched("request_headers")]

    def _on_request_body(self, message: Message) -> tuple[Event, Answers]:
        piece = message.body
        if piece:
            self._held.take(len(piece), self._bytes)
            self._bytes += len(piece)
            self._body.append(piece)
        if message.metadata:
            self._metadata = {**self._metadata, **message.metadata}
        end = message.end
        if self._request_mode == BUFFERED_PARTIAL and not end:
            # Longer than Envoy's buffer: the rest passes by unseen, so what is here is no body to read.
            return self._complete(body=False)
        return self._complete(body=True) if end or self._request_mode == BUFFERED else (None, [])

    def _on_request_trailers(self, message: Message) -> tuple[Event, Answers]:
        self._trailers = True
        return self._complete(body=True)

    def _on_early_piece(self, message: Message) -> tuple[Event, Answers]:
        self._owed += self._request_mode == STREAMED
        return None, []

    def _on_early_trailers(self, message: Message) -> tuple[Event, Answers]:
        self._trailers = True
        return None, []

    def _on_late_piece(self, message: Message) -> tuple[Event, Answers]:
        if self._request_mode == DUPLEX and self._passing:
            return None, replies.pieces("request_body", message.body, end=message.end, even_empty=True)
        return None, [replies.untouched("request_body")] if self._request_mode == STREAMED else []

    def _on_late_trailers(self, message: Message) -> tuple[Event, Answers]:
        return None, [replies.trailers("request_trailers")]

    def _on_response_headers(self, message: Message) -> tuple[Event, Answers]:
        # Before the pick this is a local answer of the proxy: the request went nowhere.
        self.close()
        self.state = State.RESPONSE
        return Head(message.headers, message.metadata, message.end), []

    def _on_response_body(self, message: Message) -> tuple[Event, Answers]:
        return Piece(message.body, message.end), []

    def _on_response_trailers(self, message: Message) -> tuple[Event, Answers]:
        return End(), []

    def _ignore(self, message: Message) -> tuple[Event, Answers]:
        return None, []


_DEAF = (State.DONE, State.WATCHING)
Action = Callable[[Stream, Message], tuple[Event, Answers]]
TABLE: dict[tuple[State, str | None], Action] = {
    (State.START, "request_headers"): Stream._on_request_headers,
    (State.START, "response_headers"): Stream._on_response_headers,
    (State.BODY, "request_body"): Stream._on_request_body,
    (State.BODY, "request_trailers"): Stream._on_request_trailers,
    (State.BODY, "response_headers"): Stream._on_response_headers,
    (State.PICKING, "request_body"): Stream._on_early_piece,
    (State.PICKING, "request_trailers"): Stream._on_early_trailers,
    (State.PICKING, "response_headers"): Stream._on_response_headers,
    (State.FORWARDED, "request_body"): Stream._on_late_piece,
    (State.FORWARDED, "request_trailers"): Stream._on_late_trailers,
    (State.FORWARDED, "response_headers"): Stream._on_response_headers,
    (State.RESPONSE, "request_body"): Stream._on_late_piece,
    (State.RESPONSE, "request_trailers"): Stream._on_late_trailers,
    (State.RESPONSE, "response_headers"): Stream._ignore,
    (State.RESPONSE, "response_body"): Stream._on_response_body,
    (State.RESPONSE, "response_trailers"): Stream._on_response_trailers,
}
"""(state, message) → what is done. A pair that is not here is a ProtocolError."""
