"""What waits, as people look at it."""

from __future__ import annotations

from heapq import nlargest
from typing import Any

from epp.flow.band import Band, Flow
from epp.flow.bands import Bands

FLOWS_SHOWN = 20
"""Of each band, the longest."""


def report(bands: Bands, now: float) -> list[dict[str, Any]]:  # JSON-like
    """Every band, the most important first, with the ceiling that it had when it last mattered."""
    # A policy may count its calls, so it is not called for this.
    ceilings = dict(bands.limits.latest)
    return [_band(band, ceilings.get(band.priority), now) for band in bands]


def _band(band: Band, ceiling: float | None, now: float) -> dict[str, Any]:
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
