"""How requests leave the queue: the names upstream counts them under, and the answers those get that may not go."""

from __future__ import annotations

from epp.types import Refused

DISPATCHED = "Dispatched"
REJECTED_CAPACITY = "RejectedCapacity"
REJECTED_NO_ENDPOINTS = "RejectedNoEndpoints"
REJECTED_OTHER = "RejectedOther"
EVICTED_TTL = "EvictedTTL"
EVICTED_NO_ENDPOINTS = "EvictedNoEndpoints"
EVICTED_CANCELLED = "EvictedContextCancelled"
EVICTED_OTHER = "EvictedOther"

BY = "flow-control"
NOT_RUNNING = "flow controller is not running"


def full(retry_after_s: float | None) -> Refused:
    """No room in the queue while the pool has endpoints."""
    message = "request rejected pre-queue: queue at capacity"
    return Refused(429, message, "rejected-saturated", BY, retry_after_s)


def full_and_empty() -> Refused:
    """No room in the queue, and no endpoint that could make some."""
    message = "no endpoints available: request rejected pre-queue: no endpoints available"
    return Refused(503, message, "rejected-no-endpoints", BY)


def expired(retry_after_s: float | None) -> Refused:
    """Waited as long as it may while the pool has endpoints."""
    message = "request timed out in queue: request evicted from queue: request TTL expired"
    return Refused(429, message, "rejected-ttl-expired", BY, retry_after_s)


def expired_and_empty() -> Refused:
    """Waited as long as it may, and there is still no endpoint."""
    message = (
        "request timed out in queue and no endpoints are available: request evicted from queue: no endpoints available"
    )
    return Refused(503, message, "rejected-no-endpoints", BY)


def displaced(retry_after_s: float | None) -> Refused:
    """Had to leave the full queue to a more important request."""
    message = "request evicted from queue: queue at capacity, a more important request took its place"
    return Refused(429, message, "evicted-queue-pressure", BY, retry_after_s)


def closing(was_queued: bool, why: str = NOT_RUNNING) -> Refused:
    """The picker shuts down; another one may answer at once."""
    whence = "request evicted from queue" if was_queued else "request rejected pre-queue"
    return Refused(503, f"flow controller shutting down: {whence}: {why}", "rejected-shutting-down", BY, 1.0)
