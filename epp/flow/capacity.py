"""Whether the queue has room, and who must leave where it has none."""

from __future__ import annotations

from epp.flow.band import Band
from epp.flow.bands import Bands
from epp.flow.settings import FlowRules
from epp.flow.ticket import Ticket


class Room:
    """Requests that wait and their bytes, in all."""

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0

    def displaced(self, bands: Bands, band: Band, ticket: Ticket, rules: FlowRules) -> list[Ticket] | None:
        """Who must leave, now that `ticket` is in `band`, so that all limits hold; None if that can't be done.

        Only sheddable requests below this one, the least important and newest first. A band's own limit admits nobody.
        """
        if len(band) > band.rules.max_requests or band.bytes > band.rules.max_bytes:
            return None
        over = self.requests - rules.max_requests if rules.max_requests else 0
        over_bytes = self.bytes - rules.max_bytes if rules.max_bytes else 0
        leaving: list[Ticket] = []
        for below in reversed(bands.order):
            if below.priority >= min(0, ticket.priority):
                break
            for other in reversed(below.waiting.values()):
                if over <= 0 and over_bytes <= 0:
                    return leaving
                leaving.append(other)
                over -= 1
                over_bytes -= other.size
        return leaving if over <= 0 and over_bytes <= 0 else None
