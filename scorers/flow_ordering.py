"""Orders of requests inside a flow of the queue: by arrival, by how long they may wait, by when they are due."""

from __future__ import annotations

from math import inf

from epp import Item


def fcfs_ordering_policy(item: Item) -> float:
    """First come, first served."""
    return item.queued_at


def edf_ordering_policy(item: Item) -> float:
    """Whoever may wait least comes first: by arrival + TTL, those without a TTL last."""
    return item.queued_at + item.ttl_s if item.ttl_s else inf


def slo_deadline_ordering_policy(item: Item) -> tuple[float, float]:
    """By when the first token is due: when the request came + its TTFT objective, those without one last."""
    request = item.request
    due = inf if request.slo_ttft_ms is None else request.received_at + request.slo_ttft_ms / 1000.0
    return due, request.received_at
