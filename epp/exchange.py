"""One request from its headers to its end: what the response phase reads, and the books it closes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from epp import headers as names
from epp.bodies import reports
from epp.bodies.parsed import Parser, ResponseReader
from epp.bodies.rewrite import ModelMapper
from epp.headers import Headers, Metadata
from epp.observe import Trace
from epp.pool.ledger import Charge
from epp.rules import Rules
from epp.types import Decision, Endpoint, Outcome, Refused, Request

if TYPE_CHECKING:
    from epp.route import Router

SSE = "text/event-stream"
FAST_S = 0.5
"""No response within so long after the pick means that the endpoint failed: an engine that refuses or drops
connections fails at once, a client that leaves waited longer. Only Envoy before 1.37 ends such a stream without a word,
later ones say 503."""


class Exchange:
    """Belongs to one stream. `settle` closes the books exactly once, whatever ended the request."""

    __slots__ = (
        "_bytes", "_ended", "_failure", "_first_at", "_forwarded", "_forwarded_at", "_gap", "_last_at", "_mapper",
        "_reader", "_router", "_settled", "_sse", "charges", "decision", "parser", "received_at", "request", "rules",
        "status", "trace",
    )  # fmt: skip

    def __init__(self, router: Router, rules: Rules, received_at: float) -> None:
        self._router = router
        self.rules = rules
        """Those in force when the request came: a reload does not change them half-way."""
        self.received_at = received_at
        self.request = Request(received_at=received_at)
        self.decision: Decision | None = None
        self.parser: Parser | None = None
        self.trace: Trace | None = None
        self.charges: list[tuple[Endpoint, Charge]] = []
        self.status = 0
        self._reader: ResponseReader | None = None
        self._mapper: ModelMapper | None = None
        self._sse = False
        self._first_at: float | None = None
        self._last_at = 0.0
        self._gap: Callable[[float], None] | None = None
        self._forwarded = False
        self._forwarded_at = received_at
        self._bytes = 0
        self._failure = ""
        self._ended = False
        self._settled = False

    def answered(self) -> None:
        """The request is on its way: drop what only the decision needed."""
        self._forwarded = True
        self._forwarded_at = self._router.now()
        self.request.prompts = ()
        if self.decision is not None:
            self.decision.forget()

    def refuse(self, refusal: Refused) -> None:
        """The request ends here; nothing was or stays charged. Further calls do nothing."""
        if self._forwarded:
            # A hook refused the engine's answer: the request was under way and is counted as such.
            self.settle("error")
        if self._settled:
            return
        self._settled = True
        self._router.observer.refused(self.request, refusal)
        if self.trace is not None:
            if refusal.decision is not None:
                self.trace.decided(refusal.decision)
            self.trace.end(status=refusal.status, error=refusal.message)
        self._close_charges()

    def head(self, headers: Headers, metadata: Metadata, end: bool) -> tuple[dict[str, str], tuple[str, ...]]:
        """The response's headers are here; returns headers to set and to remove."""
        self.status = _status(headers)
        self._ended = end
        to_set: dict[str, str] = {"x-went-into-resp-headers": "true"}
        if self.decision is None:
            return to_set, ()
        self._judge(headers)
        content_type = names.first(headers, ("content-type",))
        self._sse = SSE in content_type
        if self.parser is not None and not end:
            self._reader = self.parser.reader(content_type)
            if self.request.model != self.request.incoming_model != "":
                self._mapper = ModelMapper(self.request.model, self.request.incoming_model, self._sse)
        to_set.update(self._hooked_headers(self.decision, (headers, metadata)))
        # The client's name for the model has another length than the engine's.
        stale = () if self._mapper is None else ("content-length",)
        return to_set, (*stale, *self._take_report(headers))

    def piece(self, body: bytes, end: bool) -> bytes:
        """A piece of the response; returns what the client gets."""
        self._ended = end
        if body:
            self._observe_piece(len(body))
        if self._reader is not None:
            self._reader.feed(body)
        if self._mapper is None:
            return body
        mapped = self._mapper.feed(body)
        return mapped + self._mapper.end() if end else mapped

    def trailers(self) -> bytes:
        """The response ended with trailers; returns body bytes held back until now."""
        self._ended = True
        return b"" if self._mapper is None else self._mapper.end()

    @property
    def natural(self) -> bool:
        """True once the response has come to its own end, or said that it has."""
        return self._ended or (self._reader is not None and self._reader.complete)

    def settle(self, cause: str) -> Metadata:
        """The request is over; `cause` = natural, client-disconnect, error or evicted. Further calls do nothing.

        Returns dynamic metadata for the response's last message, if there still is one.
        """
        if self._settled:
            return {}
        self._settled = True
        self._close_charges()
        if self.decision is None:
            return {}
        if not self.status and self._router.now() - self._forwarded_at < FAST_S:
            self._blame("missing")
        outcome = self._outcome("natural" if self.natural else cause)
        router = self._router
        metadata = self.rules.hooks.finished(self.request, self.decision, outcome, router.observer.hook_failed)
        self._router.observer.ended(self.request, self.decision, outcome)
        if self.trace is not None:
            self.trace.end(status=self.status, error=outcome.failure)
        return metadata

    def _outcome(self, cause: str) -> Outcome:
        if self._reader is not None:
            self._reader.end()
        return Outcome(
            usage=None if self._reader is None else self._reader.usage,
            status=self.status,
            cause=cause,
            ttft_s=None if self._first_at is None else self._first_at - self.received_at,
            duration_s=self._router.now() - self.received_at,
            streamed=self._sse,
            response_bytes=self._bytes,
            failure=self._failure,
        )

    def _observe_piece(self, size: int) -> None:
        now = self._router.now()
        self._bytes += size
        if self._first_at is None:
            self._first_at = now
            for endpoint, charge in self.charges:
                self._router.observer.inflight(self.request, endpoint, 0, -charge.first_piece())
        elif self._gap is not None:
            self._gap(now - self._last_at)
        elif self._sse:
            self._gap = self._router.observer.gaps(self.request)
            self._gap(now - self._last_at)
        self._last_at = now

    def _judge(self, headers: Headers) -> None:
        """Tell the endpoint's health how it answered; Envoy's own 503 lacks the header an engine's answer has."""
        if self.status >= 500:
            local = self.status == 503 and names.SERVICE_TIME not in headers
            self._blame("connect" if local else "5xx")
        else:
            self._router.health.success(self._picked_key(), self._router.now())

    def _blame(self, kind: str) -> None:
        self._failure = kind
        self._router.health.failure(self._picked_key(), self._router.now())
        self._router.observer.failed(self._picked_key(), kind)

    def _hooked_headers(self, decision: Decision, seen: tuple[Headers, Metadata]) -> dict[str, str]:
        router = self._router
        found = self.rules.hooks.response_headers(self.request, decision, seen, router.observer.hook_failed)
        if router.habits.emit_decision_id:
            found["x-epp-decision-id"] = router.observer.decision_id(decision)
        return found

    def _take_report(self, headers: Headers) -> tuple[str, ...]:
        """Use the engine's load report, if we asked for one, and keep it from the client."""
        report = names.first(headers, (names.LOAD_REPORT,))
        if not report or not self._router.habits.load_report:
            return ()
        reading = reports.reading(report)
        if reading is not None:
            self._router.pool.reported(self._picked_key(), reading, self._router.now())
        return (names.LOAD_REPORT,)

    def _picked_key(self) -> str:
        return self.decision.picked[0].key if self.decision is not None else ""

    def _close_charges(self) -> None:
        for endpoint, charge in self.charges:
            requests, tokens = charge.close()
            self._router.observer.inflight(self.request, endpoint, -requests, -tokens)
        self.charges = []


def _status(headers: Headers) -> int:
    text = names.first(headers, (":status",))
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() else 0
