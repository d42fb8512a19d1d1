"""A request from its arrival at the queue until it is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from epp.types import Refused, Request

if TYPE_CHECKING:
    from epp.flow.band import Flow

QUEUED, DISPATCHED, OVER = "queued", "dispatched", "over"

Key = tuple[float, ...]
"""Where a request stands in its flow: what the ordering policy said, then its number; lowest first."""


class Desk(Protocol):
    """Who gave out a ticket and takes it back."""

    def withdrawn(self, ticket: Ticket) -> None:
        """A queued one is not wanted any more."""

    def returned(self, ticket: Ticket) -> None:
        """A dispatched one is over."""


class Ticket(Struct, eq=False):
    """One request at the queue."""

    request: Request
    size: int
    """Bytes of its body."""
    priority: int
    fairness_id: str
    number: int
    """In order of arrival."""
    queued_at: float
    ttl_s: float
    """How long it may wait while the pool has endpoints; 0 = for ever."""
    go: Callable[[], None]
    refuse: Callable[[Refused], None]
    desk: Desk
    state: str = QUEUED
    key: Key = ()
    flow: Flow | None = None
    """Where it waits."""
    evict: Callable[[], bool | None] | None = None
    """Ends the request in flight, with an answer; set by who sends it. None, or an answer False: it can't be done."""

    def cancel(self) -> None:
        """The client is gone: out of the queue at once, nothing is called. Nothing happens if it is not in there."""
        if self.state is QUEUED:
            self.desk.withdrawn(self)

    def ended(self) -> None:
        """The request is over, wherever it was; more than once does no harm."""
        if self.state is DISPATCHED:
            self.desk.returned(self)
        else:
            self.cancel()
