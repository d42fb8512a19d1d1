"""The cluster's side: feeds find the endpoints and read their load.

A feed knows the pool only by what it calls, the protocols below.
"""

from __future__ import annotations

from typing import Literal, Protocol

from epp.types import Change, Reading

ScrapeFailure = Literal["refused", "timeout", "tls", "status", "parse", "lost"]
"""Why a scrape failed: nobody listens or no route · too slow · no trust · not 200 · not a metrics page · cut off, or
the name of the metrics host does not resolve. Only `refused` says that the endpoint itself is down."""


class FeedError(ValueError):
    """A feed's settings or its first load are wrong; the text names the place, the rule and the remedy."""


class Sink(Protocol):
    """Takes what discovery found."""

    def apply(self, change: Change) -> None: ...


class ReadingSink(Protocol):
    """Takes what scraping found. Keys it does not know (any more) are ignored."""

    def sent(self, key: str) -> None:
        """A scrape of this endpoint goes out now."""

    def update(self, key: str, reading: Reading, now: float, interval_s: float) -> None:
        """It came back; the endpoint is read every `interval_s` at present."""

    def lacked(self, key: str, names: tuple[str, ...]) -> None:
        """Before `update`: the page came without these numbers, which were asked for."""

    def scrape_failed(self, key: str, kind: ScrapeFailure) -> None: ...

    def busy(self, key: str) -> bool:
        """True if requests are in flight there or were lately: it is then read more often."""
