"""program-aware-fairness: the turn is the program's that had least service for its wait. A program is a fairness id.

Service is tokens computed, prompt + 2 × completion, forgotten by halves. All services shrink by the same factor, so
instead of shrinking them all the newer ones are counted in a unit that grows.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from xxhash import xxh3_128_hexdigest

from epp import Band, Decision, Flow, Item, Outcome, Request

T = TypeVar("T")
COMPLETION_WEIGHT = 2.0
MOST_HALVINGS = 500.0
"""So far the unit may grow before all are counted anew: 2 to this power is far from the largest float."""


MOST_PROGRAMS = 50_000
"""Remembered at once, some 10 MB, since clients choose the ids; beyond it who had nothing for longest is forgotten."""
LONGEST_NAME = 100
"""Of a program; a longer one is remembered by its hash."""


class Program(Struct):
    """What one program had so far."""

    service: float
    """In units as of the service's epoch."""
    served_at: float


class Waits(Struct):
    """Of a program's requests that went."""

    seconds: float = 0.0
    count: int = 0
    latest: float = 0.0
    """When the last one went."""


class Statistics(Struct, frozen=True):
    """What the policy has seen, by program."""

    tokens: dict[str, float]
    """Service attained, decayed."""
    wait_ms: dict[str, float]
    """Mean wait of its requests in the queue."""
    jains_index: float
    """1 = all had the same."""


class Service:
    """Attained service of programs, halved every `half_life_s`; 0 = never."""

    def __init__(self, half_life_s: float) -> None:
        self.half_life_s = half_life_s
        self.programs: dict[str, Program] = {}
        self.epoch = 0.0

    def of(self, program: str) -> float:
        """In a unit common to all programs until `add` says that it has changed."""
        found = self.programs.get(program)
        return found.service if found is not None else 0.0

    def add(self, program: str, tokens: float, now: float) -> bool:
        """Whether the unit of all services has changed."""
        halvings = (now - self.epoch) / self.half_life_s if self.half_life_s else 0.0
        anew = halvings > MOST_HALVINGS
        if anew:
            self.rebase(now)
            halvings = 0.0
        found = self.programs.pop(program, None) or Program(0.0, now)
        _remember(self.programs, program, found)
        found.service += tokens * 2.0**halvings
        found.served_at = max(found.served_at, now)
        return anew

    def rebase(self, now: float) -> None:
        """Count in tokens as of `now`."""
        shrunk = self.shrunk(now)
        for program in self.programs.values():
            program.service *= shrunk
        self.epoch = now

    def shrunk(self, now: float) -> float:
        """Tokens as of `now` in one unit."""
        return float(0.5 ** ((now - self.epoch) / self.half_life_s)) if self.half_life_s else 1.0


class Standing:
    """One number for each flow of a band, and the least and greatest of them, known without looking at all."""

    def __init__(self) -> None:
        self.values: npt.NDArray[np.float64] = np.zeros(16)
        self._low = self._high = 0.0
        self._sure = False

    def put(self, row: int, value: float) -> None:
        if row == len(self.values):
            self.values = np.concatenate((self.values, np.zeros(row)))
        self.values[row] = value
        if self._sure:
            self._low, self._high = min(self._low, value), max(self._high, value)

    def change(self, row: int, value: float) -> None:
        before = self.values.item(row)
        if before in (self._low, self._high):
            self._sure = False
        self.put(row, value)

    def remove(self, row: int, last: int) -> None:
        """Put the last one in its place."""
        if self.values.item(row) in (self._low, self._high):
            self._sure = False
        self.values[row] = self.values[last]

    def weight(self, weight: float, n: int) -> float:
        """`weight` per unit, so that the first n numbers span it; 0 if they are all equal."""
        if not self._sure:
            values = self.values[:n]
            # Finding where the extremes are takes a fraction of the time that numpy's reductions take.
            self._low, self._high = values.item(values.argmin()), values.item(values.argmax())
            self._sure = True
        span = self._high - self._low
        return weight / span if span > 0 else 0.0


class Table:
    """The flows of one band that have requests, each with its program's service and its head's arrival."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.rows: dict[str, int] = {}
        self.service = Standing()
        self.arrival = Standing()

    def add(self, flow_id: str, service: float, arrival: float) -> None:
        row = self.rows[flow_id] = len(self.ids)
        self.ids.append(flow_id)
        self.service.put(row, service)
        self.arrival.put(row, arrival)

    def remove(self, flow_id: str) -> None:
        row, last = self.rows.pop(flow_id), len(self.ids) - 1
        moved = self.ids.pop()
        self.service.remove(row, last)
        self.arrival.remove(row, last)
        if row != last:
            self.ids[row] = moved
            self.rows[moved] = row

    def least(self, service_weight: float, wait_weight: float) -> str:
        """Who had least and waits longest; where all are alike, the first."""
        n = len(self.ids)
        if n == 1:
            return self.ids[0]
        of_service = self.service.weight(service_weight, n)
        of_arrival = self.arrival.weight(wait_weight, n)
        had = self.service.values[:n] * of_service
        had += self.arrival.values[:n] * of_arrival
        return self.ids[had.argmin()]


class ProgramAwareFairness:
    """The flow of the program that has had least service, and whose head has waited longest."""

    def __init__(
        self,
        *,
        strategy: Literal["las"] = "las",
        eviction_ttl_seconds: Annotated[float, Meta(gt=0)] = 3600.0,
        eviction_sweep_seconds: Annotated[float, Meta(gt=0)] = 300.0,
        las_weight_service: Annotated[float, Meta(ge=0)] = 0.8,
        las_weight_head_wait: Annotated[float, Meta(ge=0)] = 0.2,
        las_half_life_seconds: Annotated[float, Meta(ge=0)] = 60.0,
    ) -> None:
        self._ttl_s, self._sweep_s = eviction_ttl_seconds, eviction_sweep_seconds
        self._weights = las_weight_service, las_weight_head_wait
        self._service = Service(las_half_life_seconds)
        self._tables: dict[int, Table] = {}
        self._swept_at = 0.0
        self._latest = 0.0
        self._now = 0.0
        self._waits: dict[str, Waits] = {}

    def turn(self, band: Band, now: float) -> Flow | None:
        self._now = now
        return band.flows[self._tables[band.priority].least(*self._weights)]

    def queued(self, flow: Flow, item: Item) -> None:
        table = self._tables.setdefault(flow.priority, Table())
        if len(flow) == 1:
            table.add(flow.id, self._service.of(_name(flow.id)), item.queued_at)
        elif flow.head is item:
            table.arrival.change(table.rows[flow.id], item.queued_at)

    def dispatched(self, flow: Flow, item: Item) -> None:
        name = _name(flow.id)
        waits = self._waits.pop(name, None) or Waits()
        _remember(self._waits, name, waits)
        waits.seconds += max(0.0, self._now - item.queued_at)
        waits.count += 1
        waits.latest = self._now
        self.dropped(flow, item)

    def dropped(self, flow: Flow, item: Item) -> None:
        table = self._tables[flow.priority]
        if flow.head is None:
            table.remove(flow.id)
        else:
            table.arrival.change(table.rows[flow.id], flow.head.queued_at)

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        usage, now = outcome.usage, request.received_at + outcome.duration_s
        self._latest = max(self._latest, now)
        if usage is not None:
            tokens = usage.prompt_tokens + COMPLETION_WEIGHT * usage.completion_tokens
            self._serve(request.fairness_id, tokens, self._latest)
        if self._latest - self._swept_at >= self._sweep_s:
            self._sweep(self._latest)

    def _serve(self, program: str, tokens: float, now: float) -> None:
        all_changed = self._service.add(_name(program), tokens, now)
        for table in self._tables.values():
            for flow_id in list(table.rows) if all_changed else [program]:
                row = table.rows.get(flow_id)
                if row is not None:
                    table.service.change(row, self._service.of(_name(flow_id)))

    def _sweep(self, now: float) -> None:
        """Forget programs that had nothing for long and ask for nothing."""
        self._swept_at = now
        asking = {_name(flow_id) for table in self._tables.values() for flow_id in table.rows}
        for name, program in list(self._service.programs.items()):
            if now - program.served_at > self._ttl_s and name not in asking:
                del self._service.programs[name]
        self._waits = {name: waits for name, waits in self._waits.items() if now - waits.latest <= self._ttl_s}

    def adopt(self, before: ProgramAwareFairness) -> None:
        self._latest, self._swept_at = before._latest, before._swept_at
        self._waits = before._waits
        shrunk = before._service.shrunk(self._latest)
        for name, program in before._service.programs.items():
            self._service.programs[name] = Program(program.service * shrunk, program.served_at)
        self._service.epoch = self._latest

    def statistics(self) -> Statistics:
        """As of the last answer."""
        shrunk = self._service.shrunk(self._latest)
        tokens = {name: program.service * shrunk for name, program in self._service.programs.items()}
        had = np.array(list(tokens.values()))
        squares = float(had @ had)
        return Statistics(
            tokens,
            {name: waits.seconds / waits.count * 1000.0 for name, waits in self._waits.items()},
            float(had.sum()) ** 2 / (len(had) * squares) if squares else 1.0,
        )

    def state(self) -> dict[str, object]:
        found = self.statistics()
        tokens = sum(found.tokens.values())
        return {"programs": len(found.tokens), "tokens": tokens, "jains_fairness_index": found.jains_index}


def _name(fairness_id: str) -> str:
    return (
        fairness_id if len(fairness_id) <= LONGEST_NAME else xxh3_128_hexdigest(fairness_id.encode("utf-8", "replace"))
    )


def _remember(known: dict[str, T], name: str, what: T) -> None:
    """As the latest, at the cost of the one before all others if there are too many."""
    if len(known) >= MOST_PROGRAMS:
        del known[next(iter(known))]
    known[name] = what
