"""A request in the queue as policies see it."""

from __future__ import annotations

from typing import Protocol

from epp.types import Request


class Item(Protocol):
    """One request that waits."""

    @property
    def request(self) -> Request: ...

    @property
    def size(self) -> int:
        """Bytes of its body."""

    @property
    def priority(self) -> int: ...

    @property
    def fairness_id(self) -> str: ...

    @property
    def queued_at(self) -> float:
        """Seconds, on the clock of `request.received_at`."""

    @property
    def ttl_s(self) -> float:
        """How long it may wait while the pool has endpoints; 0 = for ever."""
