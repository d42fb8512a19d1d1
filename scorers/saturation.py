"""How full the pool is: detectors of saturation, each also a filter of the endpoints that take more."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from epp import Column, Endpoints, Mask
from epp.units import duration

Threshold = Annotated[float, Meta(gt=0)]


class LedgerDetector:
    """What an engine holds, its last reading corrected by what was sent and finished since, against what it takes.

    saturation = max(held / (seats + depth), kv_usage / kv_usage_limit), at most 1. `held` = waiting + running; `seats`
    = what the engine runs at once, as its readings taught; `depth` = the queue that it should have: a quarter of the
    seats, from 1 to `queue_depth`. Where no reading is fresh: in flight from here / (seats + depth), with the seats
    last learned, else the mean of the others', else `assumed_seats`. So a pool is full when every engine has a short
    queue, however old is what is known.
    """

    def __init__(
        self,
        *,
        queue_depth: Threshold = 4.0,
        kv_usage_limit: Threshold = 0.95,
        assumed_seats: Threshold = 16.0,
    ) -> None:
        self._depth = queue_depth
        self._kv = kv_usage_limit
        self._assumed = assumed_seats

    def saturation(self, endpoints: Endpoints) -> Column:
        known, seats = endpoints.known, endpoints.seats
        learned = seats > 0.0
        if not learned.all():
            usual = float(seats[learned].mean()) if learned.any() else self._assumed
            seats = np.where(learned, seats, usual)
        room = seats + np.minimum(self._depth, np.maximum(1.0, seats / 4.0))
        held = endpoints.waiting + endpoints.running
        read = np.maximum(held / room, endpoints.kv_usage / self._kv)
        full: Column = read if known.all() else np.where(known, read, endpoints.inflight / room)
        return np.minimum(full, 1.0)

    def filter(self, endpoints: Endpoints) -> Mask:
        """Those with room; all where none has."""
        return _any_or_all(self.saturation(endpoints) < 1.0)


class UtilizationDetector:
    """The fuller of queue and KV cache against their thresholds, as last read; 1 where nothing fresh is known."""

    def __init__(
        self,
        *,
        queue_depth_threshold: Annotated[int, Meta(gt=0)] = 5,
        kv_cache_util_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8,
        metrics_staleness_threshold: str | float = "200ms",
        headroom: Annotated[float, Meta(ge=0)] = 0.0,
    ) -> None:
        self._depth = float(queue_depth_threshold)
        self._kv = kv_cache_util_threshold
        self._stale_s = _seconds(metrics_staleness_threshold)
        self._room = 1.0 + headroom

    def saturation(self, endpoints: Endpoints) -> Column:
        full = np.maximum(endpoints.waiting / self._depth, endpoints.kv_usage / self._kv)
        return np.where(endpoints.fresh(self._stale_s), full, 1.0)

    def filter(self, endpoints: Endpoints) -> Mask:
        """Those with fresh readings and room, headroom included; all where there is none."""
        waits = endpoints.waiting < self._depth * self._room
        room: Mask = waits & (endpoints.kv_usage < self._kv * self._room) & endpoints.fresh(self._stale_s)
        return _any_or_all(room)


class ConcurrencyDetector:
    """What is in flight from this picker against what an endpoint may have: requests, tokens, or the fuller of both."""

    def __init__(
        self,
        *,
        concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests",
        max_concurrency: Annotated[int, Meta(gt=0)] = 100,
        max_token_concurrency: Annotated[int, Meta(gt=0)] = 1_000_000,
        headroom: Annotated[float, Meta(ge=0)] = 0.0,
        in_flight_load_producer_name: str = "",
    ) -> None:
        self._mode = concurrency_mode
        self._requests = float(max_concurrency)
        self._tokens = float(max_token_concurrency)
        self._room = 1.0 + headroom

    def saturation(self, endpoints: Endpoints) -> Column:
        requests, tokens = endpoints.inflight / self._requests, endpoints.inflight_tokens / self._tokens
        if self._mode == "hybrid":
            return np.maximum(requests, tokens)
        return requests if self._mode == "requests" else tokens

    def filter(self, endpoints: Endpoints) -> Mask:
        """Those below their limit, headroom included; possibly none, and then the request is refused."""
        requests: Mask = endpoints.inflight < int(self._requests * self._room)
        tokens: Mask = endpoints.inflight_tokens < int(self._tokens * self._room)
        if self._mode == "hybrid":
            return requests & tokens
        return requests if self._mode == "requests" else tokens


def _any_or_all(mask: Mask) -> Mask:
    return mask if mask.any() else np.ones(len(mask), dtype=np.bool_)


def _seconds(given: str | float) -> float:
    """Of a Go duration, or of nanoseconds as Go writes durations in JSON numbers. Raises ValueError."""
    try:
        seconds = duration(given) if isinstance(given, str) else given / 1e9
    except ValueError:
        seconds = -1.0
    if not seconds > 0.0:
        rule = "write a number above 0 with its unit (h, m, s, ms), such as 200ms"
        raise ValueError(f"metricsStalenessThreshold {given!r} is no duration; {rule}")
    return seconds
