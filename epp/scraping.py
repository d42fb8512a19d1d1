"""The scraper in force: another one takes its place when a configuration reads other metrics or in another way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from epp.config import Metrics
from epp.feeds.scrape import Scraper
from epp.types import Change, Endpoint


class Scraping:
    """Passes endpoints on to the scraper in force, and runs it. `use` swaps it; None = nothing is read."""

    def __init__(self, make: Callable[[Metrics], Scraper]) -> None:
        self._make = make
        self._metrics: Metrics | None = None
        self._scraper: Scraper | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._swapped = asyncio.Event()

    def use(self, metrics: Metrics | None) -> None:
        """Read so from now on. Raises FeedError, and then goes on as before."""
        if metrics == self._metrics:
            return
        scraper = None if metrics is None else self._make(metrics)
        if scraper is not None:
            scraper.apply(Change(tuple(self._endpoints.values())))
        self._metrics, self._scraper = metrics, scraper
        self._swapped.set()

    def apply(self, change: Change) -> None:
        self._endpoints.update((endpoint.key, endpoint) for endpoint in change.present)
        for key in change.gone:
            self._endpoints.pop(key, None)
        if self._scraper is not None:
            self._scraper.apply(change)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._swapped.clear()
            async with asyncio.TaskGroup() as tasks:
                running = None if self._scraper is None else tasks.create_task(self._scraper.run(), name="scraper")
                await self._swapped.wait()
                if running is not None:
                    running.cancel()
