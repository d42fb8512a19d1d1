"""What the feeds found, put where it belongs: members and load into the pool, refused scrapes into the health."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from epp.feeds import ScrapeFailure
from epp.obs.metrics import Metrics
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.types import Change, Reading

MOST_TOLD = 20
"""Endpoints named in one line of the log."""
IN_USE_S = 5.0
"""An endpoint counts as in use for so long after it was last found with requests in flight."""

log = logging.getLogger(__name__)


class Membership:
    """Takes changes of the endpoints from discovery; each of `forget` hears the key of one that is gone, `changed` of
    every change."""

    def __init__(self, pool: Pool, forget: Sequence[Callable[[str], None]], changed: Callable[[], None]) -> None:
        self._pool = pool
        self._forget = forget
        self._changed = changed

    def apply(self, change: Change) -> None:
        self._pool.apply(change)
        for key in change.gone:
            for forget in self._forget:
                forget(key)
        self._changed()
        if change.present or change.gone:
            present = _some([endpoint.key for endpoint in change.present])
            log.info(
                "endpoints changed", extra={"present": present, "gone": _some(change.gone), "now": len(self._pool)}
            )


def _some(keys: Sequence[str]) -> list[str]:
    """For a line of the log: a pool may have a thousand."""
    more = [f"and {len(keys) - MOST_TOLD} more"] if len(keys) > MOST_TOLD else []
    return [*keys[:MOST_TOLD], *more]


class PoolReadings:
    """Takes readings from the scraper; `changed` hears of each."""

    def __init__(
        self, pool: Pool, health: Health, metrics: Metrics, now: Callable[[], float], changed: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._changed = changed
        self._health = health
        self._metrics = metrics
        self._now = now
        self._used_at: dict[str, float] = {}

    def sent(self, key: str) -> None:
        self._pool.sent(key)

    def update(self, key: str, reading: Reading, now: float, interval_s: float) -> None:
        self._pool.update(key, reading, now, interval_s)
        self._changed()

    def lacked(self, key: str, names: tuple[str, ...]) -> None:
        self._metrics.extract_failed("metrics-data-source", "core-metrics-extractor")

    def scrape_failed(self, key: str, kind: ScrapeFailure) -> None:
        """Only a refused connection says that the engine is down; slow, odd or missing pages do not."""
        self._metrics.poll_failed("metrics-data-source")
        if kind == "refused":
            self._health.failure(key, self._now())
            self._metrics.endpoint_failed(key.partition("/")[2], "scrape")

    def busy(self, key: str) -> bool:
        now = self._now()
        if self._pool.ledger.load(key).requests:
            self._used_at[key] = now
            return True
        return now - self._used_at.get(key, -IN_USE_S) < IN_USE_S

    def forget(self, key: str) -> None:
        """The endpoint is gone."""
        self._used_at.pop(key, None)
