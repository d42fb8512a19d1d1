"""The half of a request that is kept where it was decided: what it was charged, and how its books are closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING

from epp import headers as names
from epp.bodies import reports
from epp.flow.ticket import Ticket
from epp.headers import Headers, Metadata, OwnMetadata
from epp.observe import Trace
from epp.pool.ledger import Charge
from epp.rules import Asked, Forward, Rules
from epp.types import UNSEEN, Decision, Endpoint, Outcome, Refused, Request

if TYPE_CHECKING:
    from epp.route import Router

SPARED_PROMPT_BYTES = 4
"""Bytes of a body that count as a token where no plug-in counts tokens."""
UNREAD = Request()
"""Stands for a request that has not come whole."""


class Account:
    """The Books of one request. `settle` closes them exactly once, whatever ended the request."""

    __slots__ = (
        "_forwarded", "_held", "_router", "_settled", "charges", "decision", "evicted", "received_at", "request",
        "rules", "ticket", "trace",
    )  # fmt: skip

    def __init__(self, router: Router, rules: Rules, received_at: float) -> None:
        self.rules = rules
        """Those in force when the request came: a reload does not change them half-way."""
        self.received_at = received_at
        self.request = UNREAD
        self.decision: Decision | None = None
        self.trace: Trace | None = None
        self.charges: list[tuple[Endpoint, Charge]] = []
        self.ticket: Ticket | None = None
        """At the queue, if there is one."""
        self.evicted: Callable[[], None] | None = None
        """Ends the stream in flight with an answer; None where that can't be done."""
        self._router = router
        self._held: Charge | None = None
        self._forwarded = False
        self._settled = False

    def pick(self, asked: Asked) -> Forward | Awaitable[Forward]:
        return self._router.pick(self, asked)

    def hold(self, endpoint: Endpoint) -> None:
        """Count the request at this endpoint until it is decided, which takes a while: it has left the queue."""
        self._held = self._router.pool.ledger.charge(endpoint.key)

    def charge(self, decision: Decision) -> None:
        """Count the request, and its tokens as far as they are known, as in flight to the endpoint of each run."""
        self._let_go()
        router = self._router
        for run in decision.runs.values():
            if not run.picked:
                continue
            first, end = self._tokens(decision, run.picked_rows[0])
            endpoint = run.picked[0]
            charge = router.pool.ledger.charge(endpoint.key, until_first=first, until_end=end)
            self.charges.append((endpoint, charge))
            router.observer.inflight(self.request, endpoint, 1, first + end)

    def _tokens(self, decision: Decision, row: int) -> tuple[float, float]:
        """Until the first piece, and until the end."""
        told = decision.signals.get("inflight_charge")
        if told is not None:
            try:
                first, end = float(told[0][row]), float(told[1][row])
                if isfinite(first) and isfinite(end):
                    return first, end
                raise ValueError(f"inflight_charge is {first} and {end}")
            except Exception as error:  # noqa: BLE001 - whoever provides it may be a stranger
                self._router.observer.hook_failed("inflight_charge", error)
        return self.request.body_bytes / SPARED_PROMPT_BYTES, 0.0

    def evict(self) -> bool:
        """A more important request needs its place; False if this one can't be ended."""
        if self.evicted is None or self._settled:
            return False
        self.evicted()
        return True

    def answered(self) -> None:
        """The request is on its way: drop what only the decision needed."""
        self._forwarded = True
        self.request.prompts, self.request.cache_salt = (), ""
        if self.decision is not None:
            self.decision.forget()

    def refuse(self, refusal: Refused) -> None:
        if self._settled or self._forwarded:
            return
        self._settled = True
        if self.request is UNREAD:
            self.request = Request(received_at=self.received_at)
        self._router.observer.refused(self.request, refusal)
        if self.trace is not None:
            if refusal.decision is not None:
                self.trace.decided(refusal.decision)
            self.trace.end(status=refusal.status, error=refusal.message)
        self._close_charges()

    def head(self, headers: Headers, metadata: Metadata, failure: str) -> dict[str, str]:
        if self.decision is None:
            return {}
        router = self._router
        if failure:
            self._blame(failure)
        else:
            router.health.success(self._picked_key(), router.now())
        if router.habits.load_report:
            self._take_report(headers)
        hooks, failed = self.rules.hooks, router.observer.hook_failed
        return hooks.response_headers(self.request, self.decision, (headers, metadata), failed)

    def first_piece(self) -> None:
        for endpoint, charge in self.charges:
            self._router.observer.inflight(self.request, endpoint, 0, -charge.first_piece())
        self._router.wake()

    def gaps(self) -> Callable[[float], None]:
        return self._router.observer.gaps(self.request)

    def settle(self, outcome: Outcome) -> OwnMetadata:
        if self._settled:
            return {}
        self._settled = True
        self._close_charges(unseen=outcome.cause == UNSEEN)
        if self.decision is None:
            return {}
        if outcome.failure and not outcome.status:
            # No headers told of it.
            self._blame(outcome.failure)
        observer = self._router.observer
        metadata = self.rules.hooks.finished(self.request, self.decision, outcome, observer.hook_failed)
        observer.ended(self.request, self.decision, outcome)
        if self.trace is not None:
            self.trace.end(status=outcome.status, error=outcome.failure)
        return metadata

    def _blame(self, kind: str) -> None:
        key = self._picked_key()
        if key in self._router.pool:
            # Requests often fail because their endpoint has just gone, and nobody would forget it a second time.
            self._router.health.failure(key, self._router.now())
        self._router.observer.failed(key, kind)

    def _take_report(self, headers: Headers) -> None:
        """Use the engine's load report, if there is one."""
        report = names.first(headers, (names.LOAD_REPORT,))
        reading = reports.reading(report) if report else None
        if reading is not None:
            self._router.pool.reported(self._picked_key(), reading, self._router.now())
            self._router.wake()

    def _let_go(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _picked_key(self) -> str:
        return self.decision.picked[0].key if self.decision is not None else ""

    def _close_charges(self, *, unseen: bool = False) -> None:
        self._let_go()
        for endpoint, charge in self.charges:
            if unseen:
                self._router.pool.hold(endpoint.key, partial(self._give_back, endpoint, charge), self._router.now())
            else:
                requests, tokens = charge.close()
                self._router.observer.inflight(self.request, endpoint, -requests, -tokens)
        self.charges = []
        self.evicted = None
        if self.ticket is not None:
            self.ticket.ended()
        self._router.wake()

    def _give_back(self, endpoint: Endpoint, charge: Charge) -> None:
        """Some time after the request was settled."""
        requests, tokens = charge.close()
        self._router.observer.inflight(self.request, endpoint, -requests, -tokens)
        self._router.wake()
