"""What the queue is configured to do. Sizes in bytes, times in seconds; 0 = without a limit, unless said otherwise."""

from __future__ import annotations

from dataclasses import dataclass, replace

from epp.plugins import Plugin


@dataclass(frozen=True, slots=True, eq=False)
class BandRules:
    """One priority's queue, or, as a template, that of every priority that has no rules of its own."""

    fairness: Plugin
    ordering: Plugin
    priority: int = 0
    """Higher is more important, below 0 sheddable; a template's counts for nothing."""
    max_bytes: int = 1_000_000_000
    """Bodies of requests that wait; always a limit."""
    max_requests: int = 5000
    """Requests that wait; always a limit."""


@dataclass(frozen=True, slots=True, eq=False)
class FlowRules:
    """The whole queue."""

    usage_limit: Plugin
    default_band: BandRules
    """Template of priorities that `bands` does not list."""
    negative_band: BandRules | None = None
    """Template of those below 0; None = as the others."""
    bands: tuple[BandRules, ...] = ()
    """Bands that always exist. Besides, band 0 does."""
    max_bytes: int = 0
    max_requests: int = 0
    ttl_s: float = 60.0
    """How long a request waits while the pool has endpoints."""
    empty_ttl_s: float = 60.0
    """How long one waits while it has none."""
    evict: bool = False
    """End sheddable requests in flight where more important ones wait for their places."""
    evict_grace_s: float = 0.01
    """From the end of an evicted request until the saturation shows it. As upstream: 0.01 where the detector counts
    what is in flight, else the interval of the readings + their staleness threshold + 0.25."""

    def band(self, priority: int) -> BandRules:
        """The rules of a priority: its own, or those of the template."""
        for rules in self.bands:
            if rules.priority == priority:
                return rules
        template = self.negative_band if priority < 0 and self.negative_band is not None else self.default_band
        return replace(template, priority=priority)
