"""`epp explain`: one decision, made by the parts that serve, without sending anything anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from epp.config import Built
from epp.exchange import Exchange
from epp.feeds import ScrapeFailure
from epp.feeds.entries import Load, Loaded
from epp.feeds.scrape import Scraper
from epp.headers import Headers
from epp.hooks import Hooks
from epp.obs.decisions import Decisions, Recorded, view
from epp.obs.explain import explain
from epp.observe import Trace
from epp.pool.health import IN_A_ROW, Health
from epp.pool.table import Pool
from epp.route import Router
from epp.rules import Habits, Rules
from epp.types import Change, Decision, Endpoint, Outcome, Reading, Refused, Request, Spent

SCRAPE_LIMIT_S = 5.0
INTERVAL_S = 1.0
"""The interval that loads of the file are taken to be read at."""


@dataclass(frozen=True, slots=True)
class Question:
    """The request to decide on."""

    body: bytes
    headers: Headers
    """`:path` among them."""
    seed: int = 0
    """Of the chance that breaks ties."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    recorded: Recorded | None
    """None if the request was refused before anything was decided."""
    refused: Refused | None = None

    def table(self) -> str:
        """For a terminal."""
        decision = None if self.recorded is None else self.recorded.decision
        shown = "" if decision is None else explain(decision)
        told = decision is not None and any(run.refused for run in decision.runs.values())
        return shown if self.refused is None or told else f"{shown}{_refusal(self.refused)}\n"

    def json(self) -> str:
        """As /debug/decisions shows it."""
        if self.recorded is not None:
            found: object = view(self.recorded)
        else:
            refused = self.refused or Refused(500, "nothing was decided")
            found = {"refused": {"status": refused.status, "code": refused.code, "message": refused.message}}
        return msgspec.json.format(msgspec.json.encode(found)).decode() + "\n"


def _refusal(refused: Refused) -> str:
    by = f" (by {refused.by})" if refused.by else ""
    return f"refused: {refused.status} {refused.message}{by}"


def pool_of(loaded: Loaded, now: float) -> Pool:
    """A pool with the endpoints of a file, as busy as their `load` says."""
    pool = Pool()
    pool.apply(Change(loaded.endpoints))
    for key, load in loaded.loads.items():
        for _ in range(int(load.inflight or 0)):
            pool.ledger.charge(key)
        # What is in flight is a part of the reading, not something sent since.
        pool.sent(key)
        if any(value is not None for value in (load.waiting, load.running, load.kv_usage)) or load.loras:
            pool.update(key, _reading(load), now, INTERVAL_S)
    return pool


def _reading(load: Load) -> Reading:
    return Reading(
        waiting=load.waiting,
        running=load.running,
        kv_usage=load.kv_usage,
        running_loras=frozenset(load.loras),
    )


def failing(loaded: Loaded) -> frozenset[str]:
    """Keys of the endpoints that the file calls failing."""
    return frozenset(key for key, load in loaded.loads.items() if load.failing)


async def scrape(built: Built, pool: Pool, endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """Read every endpoint once, into the pool; returns those that refused. The log tells of all that can't be read."""
    if built.metrics is None or not endpoints:
        return frozenset()
    sink = _Once(pool, {endpoint.key for endpoint in endpoints})
    engines, source = built.metrics.engines, built.metrics.source
    scraper = Scraper(sink, engines, source, clock=time.monotonic, chance=random.random)
    scraper.apply(Change(tuple(endpoints)))
    scraping = asyncio.create_task(scraper.run(), name="scrape once")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SCRAPE_LIMIT_S):
            await sink.done.wait()
    scraping.cancel()
    await asyncio.wait({scraping})
    return frozenset(sink.refused)


class _Once:
    """Takes one reading of each endpoint, or hears that there is none."""

    def __init__(self, pool: Pool, keys: set[str]) -> None:
        self.done = asyncio.Event()
        self.refused: set[str] = set()
        self._pool = pool
        self._left = keys

    def sent(self, key: str) -> None:
        self._pool.sent(key)

    def update(self, key: str, reading: Reading, now: float, interval_s: float) -> None:
        self._pool.update(key, reading, now, interval_s)
        self._tick(key)

    def lacked(self, key: str, names: tuple[str, ...]) -> None:
        pass

    def scrape_failed(self, key: str, kind: ScrapeFailure) -> None:
        if kind == "refused":
            self.refused.add(key)
        self._tick(key)

    def busy(self, key: str) -> bool:
        return False

    def _tick(self, key: str) -> None:
        self._left.discard(key)
        if not self._left:
            self.done.set()


async def decide(built: Built, pool: Pool, question: Question, failing: Iterable[str] = ()) -> Answer:
    """The decision on the question, as the server would make it while the endpoints `failing` cool."""
    recorder = _Recorder()
    health = Health(random.Random(question.seed))
    for key in failing:
        for _ in range(IN_A_ROW):
            health.failure(key, time.monotonic())
    router = Router(
        Rules(built.setup, built.parsers, Hooks(built.hooks), built.setup.columns),
        pool,
        health,
        observer=recorder,
        rng=np.random.default_rng(question.seed),
        now=time.monotonic,
        clock=time.perf_counter,
        habits=Habits(),
    )
    try:
        forward = Exchange(router).pick(dict(question.headers), {}, question.body, bodiless=False)
        if inspect.isawaitable(forward):
            await forward
    except Refused as refusal:
        return Answer(recorder.recorded, refusal)
    return Answer(recorder.recorded)


class _Recorder:
    """An observer that keeps the decision, which the router drops once the answer is there."""

    def __init__(self) -> None:
        self._decisions = Decisions()
        self._notes: list[str] = []

    @property
    def recorded(self) -> Recorded | None:
        return next(iter(self._decisions.latest(1)), None)

    def decided(self, request: Request, decision: Decision) -> None:
        decision.notes += self._notes
        self._decisions.record(request, decision)

    def refused(self, request: Request, refusal: Refused) -> None:
        if refusal.decision is not None:
            self._decisions.record(request, refusal.decision, refusal)

    def hook_failed(self, plugin: str, error: BaseException) -> None:
        self._notes.append(f"plug-in {plugin} failed: {error!r}")

    def started(self, request: Request) -> Trace | None:
        return None

    def decision_id(self, decision: Decision) -> str:
        return Decisions.id_of(decision)

    def inflight(self, request: Request, endpoint: Endpoint, requests: int, tokens: float) -> None: ...
    def gaps(self, request: Request) -> Callable[[float], None]:
        return lambda gap_s: None

    def passed(self, wrapped: int, read: int) -> None: ...
    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None: ...
    def suspended(self, spent: Spent) -> None: ...

    def rewritten(self, request: Request, by: str) -> None: ...
    def failed(self, key: str, kind: str) -> None: ...
