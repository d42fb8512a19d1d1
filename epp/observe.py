"""What observers of requests implement; the route calls them and knows nothing else of metrics, logs and traces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from epp.types import Decision, Endpoint, Outcome, Refused, Request, Spent


class Trace(Protocol):
    """One request's trace."""

    def headers(self) -> Mapping[str, str]:
        """What the engine must get to continue the trace."""

    def decided(self, decision: Decision) -> None: ...

    def end(self, *, status: int, error: str) -> None:
        """The request is over; `error` "" = it went well."""


class Observer(Protocol):
    """Takes note. Never raises, never blocks."""

    def started(self, request: Request) -> Trace | None:
        """The request's headers are read; a trace if it is sampled."""

    def decided(self, request: Request, decision: Decision) -> None:
        """An endpoint is picked; the decision still has its votes and signals."""

    def refused(self, request: Request, refusal: Refused) -> None: ...

    def rewritten(self, request: Request, by: str) -> None:
        """A rule of the rewrite `by` chose the request's model."""

    def inflight(self, request: Request, endpoint: Endpoint, requests: int, tokens: float) -> None:
        """So much more (or, below 0, less) is in flight to `endpoint`."""

    def piece(self, request: Request, gap_s: float) -> None:
        """A non-empty piece of an event stream, `gap_s` after the one before it."""

    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        """A request that had an endpoint is over."""

    def hook_failed(self, plugin: str, error: BaseException) -> None: ...

    def suspended(self, spent: Spent) -> None: ...

    def failed(self, key: str, kind: str) -> None:
        """An endpoint failed a request."""

    def decision_id(self, decision: Decision) -> str:
        """The id under which the decision can be looked up."""
