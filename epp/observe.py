"""What observers of requests implement; the route calls them and knows nothing else of metrics, logs and traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

    def gaps(self, request: Request) -> Callable[[float], None]:
        """Hears, for each non-empty piece of an event stream but the first, the seconds since the one before it."""

    def passed(self, wrapped: int, read: int) -> None:
        """A response went by: so many pieces were sent on in their own bytes, so many were made anew."""

    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        """A request that had an endpoint is over."""

    def hook_failed(self, plugin: str, error: BaseException) -> None: ...

    def suspended(self, spent: Spent) -> None: ...

    def failed(self, key: str, kind: str) -> None:
        """An endpoint failed a request."""

    def decision_id(self, decision: Decision) -> str:
        """The id under which the decision can be looked up."""
