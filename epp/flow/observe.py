"""What watches the queue implements; the queue knows nothing else of metrics and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from epp.flow.ticket import Ticket


class FlowObserver(Protocol):
    """Takes note. Never raises, never blocks."""

    def queued(self, ticket: Ticket, took_s: float) -> None:
        """A request must wait; putting it in took so long. Not told of those that go at once."""

    def left(self, outcome: str, ticket: Ticket, waited_s: float, was_queued: bool) -> None:
        """A request was dispatched, refused, evicted or cancelled: told once for each that came, in upstream's words
        (epp/flow/outcomes.py). `was_queued` = `queued` was told of it."""

    def cycle(self, took_s: float) -> None:
        """It was looked whether a request may go, and one went or none."""

    def evicting(self, ticket: Ticket, wanted: int, unconfirmed: int) -> None:
        """A request in flight is being ended to make room; so many were wanted this time, so many are under way."""

    def evicted(self, ticket: Ticket, took_s: float, confirmed: bool, unconfirmed: int) -> None:
        """It has ended, or it is no longer waited for; so many are still under way."""

    def failed(self, plugin: str, error: BaseException) -> None:
        """A policy raised or gave nonsense; the safe answer was taken instead."""
