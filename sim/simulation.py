"""Engines and the picker together in virtual time: the same load always comes to the same figures."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from epp.exchange import Exchange
from epp.rules import Rules
from epp.types import Endpoint, Reading, Refused
from sim.clock import Clock
from sim.engine import Engine
from sim.figures import Figures, Quantiles, imbalance
from sim.picker import Picker, reading
from sim.text import answer, job
from sim.types import EngineSettings, Event, Happening, Job
from sim.virtual import VirtualEngine
from sim.workload import Arrival

FAILS_AFTER_S = 0.005


@dataclass(frozen=True, slots=True)
class Scene:
    """What the load meets."""

    engines: int = 100
    engine: EngineSettings = field(default_factory=EngineSettings)
    reading_interval_s: float = 1.0
    """How often each engine's load is read; the engines' moments are spread over it."""
    reading_delay_s: float = 0.02
    """From a reading being taken to its arrival in the pool."""
    readings_only: bool = False
    """The picker does not count what it sent itself: it decides by readings as old as they are."""
    failing: int = 0
    """So many engines answer every request with 500, FAILS_AFTER_S after it came."""
    slow_by: float = 1.0
    """The last engine takes so many times as long for everything."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.engines < 1:
            raise ValueError(f"engines {self.engines} must be at least 1")
        if not 0 <= self.failing <= self.engines:
            raise ValueError(f"failing {self.failing} must be from 0 to the {self.engines} engines there are")
        if self.reading_interval_s <= 0 or self.reading_delay_s < 0:
            raise ValueError(
                f"readings each {self.reading_interval_s} s, {self.reading_delay_s} s late: the interval must be above "
                "0, the delay not below it"
            )


@dataclass(frozen=True, slots=True)
class Result:
    """What a simulation came to."""

    figures: Figures
    queue_wait: Quantiles
    """From an engine getting a request to its admission to the batch."""
    picks: tuple[int, ...]
    """Requests sent to each engine."""
    preemptions: int
    flaws: Mapping[str, int]
    """Plug-ins' failures and broken votes, and how often each occurred; empty = the figures mean what they say."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request at an engine."""

    exchange: Exchange
    session: str


def simulate(rules: Rules, scene: Scene, arrivals: Iterator[Arrival]) -> Result:
    """Let `rules` pick for every one of `arrivals` and wait for the last answer. `rules` must be new: they remember."""
    world = _World(rules, scene, arrivals)
    world.clock.run()
    return world.result()


def _address(number: int) -> str:
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _slower(engine: EngineSettings, by: float) -> EngineSettings:
    speed = engine.speed
    times = ("inter_token_s", "prefill_overhead_s", "prefill_s_per_token", "time_to_first_token_s")
    return replace(engine, speed=replace(speed, **{name: getattr(speed, name) * by for name in times}))


class _World:
    """One simulation under way."""

    def __init__(self, rules: Rules, scene: Scene, arrivals: Iterator[Arrival]) -> None:
        self.clock = Clock()
        self._scene = scene
        self._arrivals = arrivals
        endpoints = [Endpoint(f"engine-{n}", _address(n), 8000) for n in range(scene.engines)]
        self._row = {endpoint.host_port: row for row, endpoint in enumerate(endpoints)}
        self._keys = [endpoint.key for endpoint in endpoints]
        self._picker = Picker(rules, endpoints, self.clock, seed=scene.seed, readings_only=scene.readings_only)
        kinds = [*[scene.engine] * (scene.engines - 1), _slower(scene.engine, scene.slow_by)]
        self._engines = [VirtualEngine(self.clock, Engine(kind), self._notice) for kind in kinds]
        self._asked: dict[Job, _Asked] = {}
        self._picks = [0] * scene.engines
        self._requests = self._errors = 0
        self._begun_at: float | None = None
        self._ended_at = 0.0
        self._ttft, self._waits = array("d"), array("d")
        self._coming = True
        self._next()
        phases = random.Random(scene.seed)
        for row in range(scene.engines):
            self.clock.at(phases.uniform(0.0, scene.reading_interval_s), partial(self._read, row))

    def result(self) -> Result:
        counters = [engine.engine.counters for engine in self._engines]
        looked_up = sum([each.prefix_queries for each in counters])
        figures = Figures(
            requests=self._requests,
            errors=self._errors,
            lasted_s=self._ended_at - (self._begun_at or 0.0),
            ttft=Quantiles.of(self._ttft),
            hit_share=sum([each.prefix_hits for each in counters]) / looked_up if looked_up else 0.0,
            imbalance=imbalance(self._picks),
        )
        preemptions = sum([each.preemptions for each in counters])
        return Result(figures, Quantiles.of(self._waits), tuple(self._picks), preemptions, self._picker.watch.flaws)

    # Load

    def _next(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is None:
            self._coming = False
        else:
            self.clock.at(arrival.at, partial(self._arrive, arrival))

    def _arrive(self, arrival: Arrival) -> None:
        if self._begun_at is None:
            self._begun_at = self.clock.now
        self._requests += 1
        try:
            exchange, destination = self._picker.pick(arrival, str(self._requests))
        except Refused:
            self._errors += 1
        else:
            self._send(arrival, exchange, self._row[destination])
        self._next()

    def _send(self, arrival: Arrival, exchange: Exchange, row: int) -> None:
        self._picks[row] += 1
        if row < self._scene.failing:
            self.clock.at(self.clock.now + FAILS_AFTER_S, partial(self._fail, exchange, 500))
            return
        reply = answer(arrival.prompt, arrival.max_tokens)
        work = job(arrival.prompt, reply, self._scene.engine.block_size, arrival.lora)
        try:
            self._engines[row].submit(work)
        except ValueError:  # it could never fit into the KV cache
            self._fail(exchange, 400)
            return
        self._asked[work] = _Asked(exchange, arrival.session)

    def _fail(self, exchange: Exchange, status: int) -> None:
        self._errors += 1
        self._picker.failed(exchange, status)
        self._ended_at = self.clock.now

    # Engines

    def _notice(self, event: Event) -> None:
        work = event.job
        if event.what is Happening.FIRST_TOKEN:
            asked = self._asked[work]
            self._picker.began(asked.exchange, asked.session)
            arrived_at = work.arrived_at or 0.0
            self._ttft.append(event.at - arrived_at)
            self._waits.append((work.admitted_at or 0.0) - arrived_at)
        else:
            asked = self._asked.pop(work)
            self._picker.ended(asked.exchange, work.output_tokens)
            self._ended_at = event.at

    def _read(self, row: int) -> None:
        """Take a reading of an engine; it arrives a little later, the next one is taken an interval later."""
        now, scene = self.clock.now, self._scene
        self._picker.pool.sent(self._keys[row])
        seen = reading(self._engines[row].engine.load(now), scene.engine)
        self.clock.at(now + scene.reading_delay_s, partial(self._tell, row, seen))
        if self._coming or self._asked:
            self.clock.at(now + scene.reading_interval_s, partial(self._read, row))

    def _tell(self, row: int, seen: Reading) -> None:
        self._picker.pool.update(self._keys[row], seen, self.clock.now, self._scene.reading_interval_s)
