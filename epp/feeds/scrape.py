"""Reads the metrics pages of all endpoints, gently, for as long as the picker runs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import msgspec
from yarl import URL

from epp.feeds import FeedError, ReadingSink
from epp.feeds.certs import ClientTls
from epp.feeds.engines import EngineMap, Engines
from epp.feeds.fetch import CONNECTIONS, ScrapeError, Session, fetch, session
from epp.feeds.meter import Metered
from epp.feeds.pace import Pace, Schedule, seconds
from epp.feeds.promtext import Places
from epp.feeds.reading import Look, read
from epp.feeds.turns import Turns
from epp.types import Change, Endpoint

UNSEEN = 1.5
"""CPU time of a scrape over that of its coroutine's steps: the rest is spent in the event loop and its sockets."""
TICK_S = 0.001
"""The loop's timers are no finer: what falls due within it is due."""

log = logging.getLogger(__name__)


class MetricsDataSource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Settings of the plug-in type `metrics-data-source`: where the metrics pages are and how to get them."""

    scheme: Literal["http", "https"] = "http"
    """http (the default, as engines serve) or https."""
    path: str = "/metrics"
    """Path of the page. trtllm-serve needs /prometheus/metrics."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    """Port of the page on every endpoint; default: the port of the endpoint, or that of its metrics address."""
    insecure_skip_verify: bool = True
    """With https: do not check the engine's certificate. True because engines serve self-signed ones."""
    ca_cert_path: str = ""
    """PEM file of the authority to trust; default: those of the system. Read again when it changes."""
    client_cert_path: str = ""
    """PEM file of our own certificate. Read again when it changes."""
    client_key_path: str = ""
    """PEM file of its key. Read again when it changes."""
    interval: str = ""
    """Time between two scrapes of an endpoint in use, such as 500ms; idle ones take twice that. Default: 1s. Shorter
    ones are honoured as far as a tenth of a core allows."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What to read of an endpoint, and how."""

    key: str
    url: URL
    engine: EngineMap
    places: Places = field(default_factory=dict, compare=False)
    """Where the families were on its last page."""


class Scraper:
    """Keeps the readings of the endpoints fresh: `apply` tells it who they are, `run` reads them until cancelled."""

    def __init__(
        self,
        sink: ReadingSink,
        engines: Engines,
        source: MetricsDataSource | None = None,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        pace: Pace | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        """`pace` is what the command line asks for; the source's own interval goes before it. FeedError if the source
        can't be used."""
        self.scrapes = 0
        """Sent since the start."""
        self._sink = sink
        self._engines = engines
        self._source = source or MetricsDataSource()
        self._clock = clock
        self._timeout_s = timeout_s
        self._tls = _tls(self._source)
        self._pace = _pace(self._source, pace or Pace())
        self._schedule = Schedule(self._pace, chance)
        self._targets: dict[str, _Target] = {}
        self._failing: set[str] = set()
        self._turns = Turns()
        self._changed = asyncio.Event()
        self._awake_at = math.inf
        self._told_stretch = False

    def apply(self, change: Change) -> None:
        """Endpoints that came or whose page moved are read at once; those that went no more."""
        now = self._clock()
        for endpoint in change.present:
            target = _Target(endpoint.key, page_url(endpoint, self._source), self._engines.of(endpoint))
            known = self._targets.get(endpoint.key)
            self._targets[endpoint.key] = target
            if known is None or known.url != target.url:
                self._schedule.add(endpoint.key, now)
        for key in change.gone:
            self._targets.pop(key, None)
            self._failing.discard(key)
            self._schedule.remove(key)
        self._changed.set()

    async def run(self) -> None:
        slots = asyncio.Semaphore(CONNECTIONS)
        async with session(self._timeout_s) as http, asyncio.TaskGroup() as scrapes:
            while True:
                self._changed.clear()
                for key in self._schedule.due(self._clock() + TICK_S):
                    await slots.acquire()
                    await self._turns.mine()
                    task = scrapes.create_task(self._scrape(http, key), name=f"scrape {key}")
                    task.add_done_callback(lambda _: slots.release())
                await self._wait()

    async def _wait(self) -> None:
        """Until something is due or the endpoints changed."""
        due = self._schedule.next_due()
        self._awake_at = math.inf if due is None else due
        timer = None
        if due is not None:
            timer = asyncio.get_running_loop().call_later(max(TICK_S, due - self._clock()), self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()

    async def _scrape(self, http: Session, key: str) -> None:
        sent_at = self._clock()
        failed = True
        try:
            target = self._targets.get(key)
            if target is not None:
                failed = not await self._look(http, target)
        except Exception:  # a fault of ours that one endpoint brought out must not end the reading of the others
            log.exception("scraping %s", key)
        self._schedule.done(key, sent_at=sent_at, busy=self._sink.busy(key), failed=failed)
        if (due := self._schedule.next_due()) is not None and due < self._awake_at:
            self._changed.set()

    async def _look(self, http: Session, target: _Target) -> bool:
        """Scrape once and tell the sink; False if it failed."""
        self.scrapes += 1
        self._sink.sent(target.key)
        work = Metered(self._page(http, target))
        try:
            look = await work
        except ScrapeError as error:
            self._failed(target, error)
            return False
        finally:
            self._spent(work.spent_s)
        if self._targets.get(target.key) == target:
            self._told(target, look)
        return True

    async def _page(self, http: Session, target: _Target) -> Look:
        tls = self._tls.context(self._clock()) if self._tls else None
        page = await fetch(http, target.url, tls)
        await self._turns.mine()
        look = read(page, target.engine, target.places)
        if look.empty:
            raise ScrapeError("parse", f"none of the metrics of engine {target.engine.name!r} is on the page")
        return look

    def _told(self, target: _Target, look: Look) -> None:
        if target.key in self._failing:
            self._failing.discard(target.key)
            log.info("reading %s again: %s", target.key, target.url)
        if look.missing:
            self._sink.lacked(target.key, look.missing)
        interval_s = self._schedule.interval_s(self._sink.busy(target.key))
        self._sink.update(target.key, look.reading, self._clock(), interval_s)

    def _failed(self, target: _Target, error: ScrapeError) -> None:
        if self._targets.get(target.key) != target:
            return
        if target.key not in self._failing:
            self._failing.add(target.key)
            log.warning("can't read %s (%s): %s: %s", target.key, target.url, error.kind, error)
        self._sink.scrape_failed(target.key, error.kind)

    def _spent(self, steps_s: float) -> None:
        self._schedule.spent(steps_s * UNSEEN)
        stretch = self._schedule.stretch
        if stretch > 1.05 and not self._told_stretch:
            self._told_stretch = True
            log.warning(
                "a scrape costs %.2f ms of CPU here: reading %d endpoints every %g s would take more than %g cores, so "
                "intervals are %.1f times as long as asked for and follow the load from now on",
                self._schedule.cost_s * 1e3,
                len(self._schedule),
                self._pace.busy_s,
                self._pace.budget_cores,
                stretch,
            )


def _pace(source: MetricsDataSource, asked: Pace) -> Pace:
    """What the source says goes before what the command line asks; the budget stays that of the command line."""
    if not source.interval:
        return asked
    try:
        return replace(Pace.of(seconds(source.interval)), budget_cores=asked.budget_cores)
    except FeedError as error:
        raise FeedError(f"interval: {error}") from None


def _tls(source: MetricsDataSource) -> ClientTls | None:
    if source.scheme == "http":
        return None
    return ClientTls(
        verify=not source.insecure_skip_verify,
        ca=source.ca_cert_path,
        cert=source.client_cert_path,
        key=source.client_key_path,
    )


def page_url(endpoint: Endpoint, source: MetricsDataSource) -> URL:
    """Where the metrics page of `endpoint` is."""
    host_port = endpoint.metrics_address or endpoint.host_port
    if source.port is not None:
        host_port = f"{host_port.rpartition(':')[0]}:{source.port}"
    return URL(f"{source.scheme}://{host_port}/{source.path.lstrip('/')}", encoded=True)
