"""When the queue lets requests go, by what says how full the pool is: ledger-detector and upstream's default.

`python -m benchmarks.saturation` runs four scenes in virtual time, two in which upstream's utilization-detector lets
too many go and two in which it stalls, and writes results/saturation.json. Upstream's is given readings as upstream has
them: as read, not corrected by what was sent since, and stale after its threshold whatever their interval. Requests go
to the endpoint with the fewest in flight in both, so that the detector alone differs. Half a minute; always the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np

from benchmarks.machine import write
from benchmarks.simulated import SMALL
from epp.flow.control import FlowControl
from epp.flow.saturation import Saturation
from epp.flow.settings import BandRules, FlowRules
from epp.flow.ticket import DISPATCHED, Ticket
from epp.plugins import Plugin, PluginType
from epp.pool.ledger import Charge, Ledger
from epp.pool.table import Pool
from epp.scheduler import Bound
from epp.types import Change, Endpoint, Refused, Request
from scorers.flow_fairness import GlobalStrictFairnessPolicy
from scorers.flow_limits import StaticUsageLimitPolicy
from scorers.flow_ordering import fcfs_ordering_policy
from scorers.saturation import LedgerDetector, UtilizationDetector
from sim.clock import Clock
from sim.engine import Engine
from sim.picker import reading
from sim.text import answer, job
from sim.types import Event, Happening, Job
from sim.virtual import VirtualEngine
from sim.workload import Arrival, arrival_times, plain

PROMPT, ANSWER = 512, 128
EACH = 3.4
"""Requests a second that an engine can do, about."""
SLO_S = 2.0
"""An answer whose first token comes later is no good."""


@dataclass(frozen=True)
class Scene:
    """One load, and how the engines' metrics come."""

    about: str
    load: float
    """Requests a second by what the engines can do."""
    chat_share: float
    reading_s: float | None
    """Between two readings of an engine; None = they can't be read."""
    burst: int = 0
    """Batch requests that come within a tenth of a second, every ten seconds."""
    late_s: float = 0.02
    """From a reading being taken to its arrival."""
    engines: int = 4
    threshold: str = "200ms"
    """metricsStalenessThreshold of upstream's."""
    lasts_s: float = 60.0


SCENES = {
    "bursts between two readings": Scene(
        "half of what the engines can do, and every 10 s 60 batch requests at once; readings each 100 ms",
        0.5, 0.6, 0.1, burst=60,
    ),
    "readings each second, threshold raised": Scene(
        "1.5 times what the engines can do; readings each second, for which the threshold was raised to 3 s",
        1.5, 0.3, 1.0, threshold="3s",
    ),
    "readings each two seconds": Scene(
        "half of what two engines can do; readings each 2 s, stale after 200 ms by default", 0.5, 1.0, 2.0, engines=2
    ),
    "no readings": Scene("half of what the engines can do; their metrics can't be read", 0.5, 1.0, None),
}  # fmt: skip


class World:
    """A queue before engines."""

    def __init__(self, scene: Scene, *, upstream: bool) -> None:
        self.clock = Clock()
        self._scene, self._upstream = scene, upstream
        self.pool = Pool()
        if upstream:
            # What is charged reaches no column, so readings stay as they came.
            self.pool.ledger = Ledger(lambda *_: None)
        endpoints = [Endpoint(f"e{n}", f"10.0.0.{n + 1}", 8000) for n in range(scene.engines)]
        self.pool.apply(Change(tuple(endpoints)))
        self._keys = [endpoint.key for endpoint in endpoints]
        self._inflight = np.zeros(scene.engines)
        self._engines = [VirtualEngine(self.clock, Engine(SMALL), self._notice) for _ in endpoints]
        detector = UtilizationDetector(metrics_staleness_threshold=scene.threshold) if upstream else LedgerDetector()
        bound = Bound("detector", detector.saturation, ("endpoints",))
        self.flow = FlowControl(
            _rules(),
            now=lambda: self.clock.now,
            saturation=Saturation(lambda: self.pool.snapshot(self.clock.now), bound, _failed),
            pool_size=lambda: scene.engines,
            later=self._after,
            observer=_Nobody(),  # type: ignore[arg-type]  # takes every call
        )
        self._under_way: dict[Job, tuple[Ticket, Charge, int]] = {}
        self._came: dict[Job, tuple[float, int]] = {}
        self.ttft: dict[int, list[float]] = {0: [], -1: []}
        self.sent = {0: 0, -1: 0}
        self.longest = 0

    def run(self) -> dict[str, float | None]:
        rng = Random(0)
        texts = plain(Random(1), arrival_times(Random(2), 1.0), PROMPT, ANSWER)
        scene, at = self._scene, 0.0
        while at < scene.lasts_s:
            at += rng.expovariate(scene.load * EACH * scene.engines)
            self.clock.at(at, partial(self._arrive, next(texts), 0 if rng.random() < scene.chat_share else -1))
        for number in range(scene.burst * int(scene.lasts_s / 10.0)):
            when = 10.0 * (1 + number // scene.burst) + 0.1 * rng.random()
            self.clock.at(when, partial(self._arrive, next(texts), -1))
        if self._scene.reading_s is not None:
            for row in range(self._scene.engines):
                self.clock.at(rng.random() * self._scene.reading_s, partial(self._read, row))
        self.clock.run(self._scene.lasts_s + 60.0)
        return self._figures()

    def _figures(self) -> dict[str, float | None]:
        chat, batch = self.ttft[0], self.ttft[-1]
        good = sum([one <= SLO_S for one in (*chat, *batch)])
        return {
            "chat_ttft_p50_ms": round(float(np.quantile(chat, 0.5)) * 1e3, 1) if chat else None,
            "chat_ttft_p99_ms": round(float(np.quantile(chat, 0.99)) * 1e3, 1) if chat else None,
            "good_share": round(good / sum(self.sent.values()), 3),
            "answered_share": round((len(chat) + len(batch)) / sum(self.sent.values()), 3),
            "longest_engine_queue": self.longest,
        }

    def _arrive(self, arrival: Arrival, priority: int) -> None:
        self.sent[priority] += 1
        request = Request(id=str(sum(self.sent.values())), priority=priority, fairness_id="f")
        came = self.clock.now
        ticket: list[Ticket] = []
        go = partial(self._go, arrival, priority, came, ticket)
        try:
            ticket.append(self.flow.enter(request, len(arrival.prompt), go, lambda _: None))
        except Refused:
            return
        if ticket[0].state is DISPATCHED:
            go()

    def _go(self, arrival: Arrival, priority: int, came: float, ticket: list[Ticket]) -> None:
        row = int(self._inflight.argmin())
        self._inflight[row] += 1
        work = job(arrival.prompt, answer(arrival.prompt, arrival.max_tokens), SMALL.block_size, "")
        charge = self.pool.ledger.charge(self._keys[row], until_first=float(PROMPT))
        self._under_way[work] = (ticket[0], charge, row)
        self._came[work] = (came, priority)
        self._engines[row].submit(work)
        self.longest = max(self.longest, self._engines[row].engine.load(self.clock.now).waiting)

    def _notice(self, event: Event) -> None:
        ticket, charge, row = self._under_way[event.job]
        if event.what is Happening.FIRST_TOKEN:
            came, priority = self._came.pop(event.job)
            self.ttft[priority].append(event.at - came)
            charge.first_piece()
        else:
            del self._under_way[event.job]
            self._inflight[row] -= 1
            charge.close()
            ticket.ended()
        self.flow.changed()

    def _read(self, row: int) -> None:
        now, every = self.clock.now, self._scene.reading_s or 1.0
        self.pool.sent(self._keys[row])
        seen = reading(self._engines[row].engine.load(now), SMALL)
        self.clock.at(now + self._scene.late_s, partial(self._tell, row, seen))
        self.clock.at(now + every, partial(self._read, row))

    def _tell(self, row: int, seen: Any) -> None:
        # Upstream looks at the threshold alone.
        every = 0.0 if self._upstream else self._scene.reading_s or 1.0
        self.pool.update(self._keys[row], seen, self.clock.now, every)
        self.flow.changed()

    def _after(self, delay_s: float, call: Callable[[], None]) -> _Timer:
        timer = _Timer(call)
        self.clock.at(self.clock.now + max(0.0, delay_s), timer)
        return timer


class _Timer:
    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    def __call__(self) -> None:
        if self._call is not None:
            self._call()

    def cancel(self) -> None:
        self._call = None


class _Nobody:
    """Hears everything and keeps nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


def _failed(plugin: str, error: BaseException) -> None:
    raise error


def _rules() -> FlowRules:
    def made(instance: Any, name: str) -> Plugin:
        return Plugin(name, PluginType(name, (), type(instance), (), "benchmarks"), instance, {})

    band = BandRules(made(GlobalStrictFairnessPolicy(), "strict"), made(fcfs_ordering_policy, "fcfs"))
    return FlowRules(made(StaticUsageLimitPolicy(), "static"), band)


def lines(scenes: Mapping[str, Any]) -> list[str]:
    """The table of docs/flow-control.md."""
    rows = [
        "| scene | detector | chats: p50, p99 of TTFT | answered | longest queue in an engine |",
        "|---|---|---|---|---|",
    ]
    for name, scene in scenes.items():
        for who in ("utilization-detector", "ledger-detector"):
            one = scene[who]
            times = [one["chat_ttft_p50_ms"], one["chat_ttft_p99_ms"]]
            shown = "–" if None in times else f"{times[0]:,.0f} ms, {times[1]:,.0f} ms"
            rows.append(f"| {name} | `{who}` | {shown} | {one['answered_share']:.0%} | {one['longest_engine_queue']} |")
    return rows


def main(arguments: Sequence[str] = ()) -> None:
    found: dict[str, dict[str, object]] = {}
    for name, scene in SCENES.items():
        both = {
            who: World(scene, upstream=who == "utilization-detector").run()
            for who in ("utilization-detector", "ledger-detector")
        }
        found[name] = {"about": scene.about, **both}
        sys.stdout.write(f"{name}: {both}\n")
    write("saturation", {"slo_s": SLO_S, "scenes": found})
    sys.stdout.write("\n".join(lines(found)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
