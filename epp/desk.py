"""What the half of a request that talks to Envoy asks of the half that decides: direct calls, or messages to another
process (epp/workers), so that both mean the same.

Answers may be awaitable; those of one process are so only where a slow signal or a queue makes a pick wait.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from epp.bodies.registry import Parsers
from epp.headers import Headers, Metadata, OwnMetadata
from epp.rules import Asked, Forward, Habits
from epp.types import Outcome, Refused


class Books(Protocol):
    """One request where it is decided."""

    evicted: Callable[[], None] | None
    """Called when the request, on its way, must end for a more important one; set where the desk `evicts`."""

    def pick(self, asked: Asked) -> Forward | Awaitable[Forward]:
        """Choose, and charge the endpoint. Raises Refused, or returns an awaitable that may."""

    def refuse(self, refusal: Refused) -> None:
        """The request ends without an endpoint. Further calls do nothing."""

    def head(self, headers: Headers, metadata: Metadata, failure: str) -> dict[str, str] | Awaitable[dict[str, str]]:
        """The response's headers are here, and how the endpoint failed ("" = it did not).

        Returns headers to set, or an awaitable for them. Either may raise Refused.
        """

    def first_piece(self) -> None:
        """The prompt is computed: its tokens are given back."""

    def gaps(self) -> Callable[[float], None]:
        """Hears the seconds between two pieces of an event stream."""

    def settle(self, outcome: Outcome) -> OwnMetadata | Awaitable[OwnMetadata]:
        """The request is over. Returns dynamic metadata for the response's last message, if there still is one."""


class Desk(Protocol):
    """Where requests are decided."""

    habits: Habits

    @property
    def parsers(self) -> Parsers:
        """Those in force."""

    @property
    def now(self) -> Callable[[], float]:
        """Seconds."""

    @property
    def evicts(self) -> bool:
        """Requests may be ended while they are on their way."""

    def open(self, received_at: float) -> Books:
        """A request's headers have arrived."""

    def passed(self, wrapped: int, read: int) -> None:
        """A response went by: so many pieces were sent on in their own bytes, so many were made anew."""
