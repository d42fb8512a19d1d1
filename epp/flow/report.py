"""What waits, as people look at it."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest
from typing import Any

from epp.flow.band import Band, Flow

FLOWS_SHOWN = 20
"""Of each band, the longest."""


def report(bands: Iterable[Band], ceilings: Iterable[float], now: float) -> list[dict[str, Any]]:  # JSON-like
    """Every band, the most important first."""
    return [_band(band, ceiling, now) for band, ceiling in zip(bands, ceilings, strict=True)]


def _band(band: Band, ceiling: float, now: float) -> dict[str, Any]:
    first = next(iter(band.waiting.values()), None)
    return {
        "priority": band.priority,
        "ceiling": ceiling,
        "requests": len(band),
        "bytes": band.bytes,
        "max_requests": band.rules.max_requests,
        "max_bytes": band.rules.max_bytes,
        "fairness": band.rules.fairness.name,
        "ordering": band.rules.ordering.name,
        "oldest_wait_s": None if first is None else now - first.queued_at,
        "flows": len(band.flows),
        "longest_flows": [_flow(flow, now) for flow in nlargest(FLOWS_SHOWN, band.flows.values(), key=len)],
    }


def _flow(flow: Flow, now: float) -> dict[str, Any]:
    head = flow.head
    return {
        "fairness_id": flow.id,
        "requests": len(flow),
        "bytes": flow.bytes,
        "head": None if head is None else head.request.id,
        "head_waited_s": None if head is None else now - head.queued_at,
    }
