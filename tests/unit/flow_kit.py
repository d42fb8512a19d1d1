"""A pool with so many places, a queue before it and a clock that is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Any

from epp.flow.control import FlowControl
from epp.flow.settings import BandRules, FlowRules
from epp.flow.ticket import DISPATCHED, QUEUED, Ticket
from epp.plugins import Plugin, PluginType
from epp.testing import request
from epp.types import Refused
from scorers.flow_fairness import GlobalStrictFairnessPolicy
from scorers.flow_limits import StaticUsageLimitPolicy
from scorers.flow_ordering import fcfs_ordering_policy


def plugin(instance: Any, name: str = "") -> Plugin:
    """A plug-in made of a function or of an instance of its class."""
    target = instance if hasattr(instance, "__name__") else type(instance)
    return Plugin(name or target.__name__, PluginType(target.__name__, (), target, (), "tests"), instance, {})


def band(priority: int = 0, *, fairness: Any = None, ordering: Any = fcfs_ordering_policy, **limits: int) -> BandRules:
    return BandRules(plugin(fairness or GlobalStrictFairnessPolicy()), plugin(ordering), priority, **limits)


def rules(*bands: BandRules, limit: Any = None, default: BandRules | None = None, **settings: Any) -> FlowRules:
    policy = plugin(limit or StaticUsageLimitPolicy())
    return FlowRules(policy, default or band(), bands=bands, **settings)


@dataclass
class Alarm:
    """A timer that has not rung."""

    call: Callable[[], None] | None

    def cancel(self) -> None:
        self.call = None


class Heard:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.outcomes: list[tuple[str, str]] = []
        self.waited: list[float] = []
        self.cycles = 0
        self.failures: list[str] = []
        self.evictions: list[tuple[str, int, int]] = []
        self.ends: list[tuple[str, float, bool, int]] = []

    def queued(self, ticket: Ticket, took_s: float) -> None:
        assert ticket.number not in self.waiting
        self.waiting.add(ticket.number)

    def left(self, outcome: str, ticket: Ticket, waited_s: float, was_queued: bool) -> None:
        assert was_queued == (ticket.number in self.waiting)
        self.waiting.discard(ticket.number)
        self.outcomes.append((outcome, ticket.request.id))
        self.waited.append(waited_s)

    def cycle(self, took_s: float) -> None:
        self.cycles += 1

    def evicting(self, ticket: Ticket, wanted: int, unconfirmed: int) -> None:
        self.evictions.append((ticket.request.id, wanted, unconfirmed))

    def evicted(self, ticket: Ticket, took_s: float, confirmed: bool, unconfirmed: int) -> None:
        self.ends.append((ticket.request.id, took_s, confirmed, unconfirmed))

    def failed(self, plugin: str, error: BaseException) -> None:
        self.failures.append(plugin)


@dataclass
class World:
    """`places` requests saturate the pool; each dispatched one takes one at once."""

    rules: FlowRules = field(default_factory=rules)
    places: int = 1
    endpoints: int = 1
    now: float = 1000.0
    evictable: bool = True

    def __post_init__(self) -> None:
        self.running: dict[str, Ticket] = {}
        self.sent: list[str] = []
        """Ids in order of dispatch."""
        self.refused: dict[str, Refused] = {}
        self.told_to_end: list[str] = []
        self.heard = Heard()
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self.flow = FlowControl(
            self.rules,
            now=lambda: self.now,
            saturation=self.saturation,
            pool_size=lambda: self.endpoints,
            later=self.later,
            observer=self.heard,
        )

    def saturation(self) -> float:
        return len(self.running) / self.places if self.endpoints else 1.0

    def later(self, delay_s: float, call: Callable[[], None]) -> Alarm:
        alarm = Alarm(call)
        heappush(self._alarms, (self.now + delay_s, next(self._numbers), alarm))
        return alarm

    def enter(self, name: str, priority: int = 0, fairness_id: str = "a", size: int = 1, **fields: Any) -> Ticket:
        """A request comes; the Refused is raised."""
        asking = request(id=name, priority=priority, fairness_id=fairness_id, **fields)
        ticket: Ticket
        ticket = self.flow.enter(asking, size, lambda: self._charge(ticket), lambda r: self._refuse(name, r))
        if self.evictable:
            ticket.evict = lambda: self.told_to_end.append(name)
        if ticket.state is DISPATCHED:
            self._charge(ticket)
        return ticket

    def _charge(self, ticket: Ticket) -> None:
        name = ticket.request.id
        assert name not in self.sent, f"{name} is dispatched twice"
        assert name not in self.refused, f"{name} is dispatched after it was refused"
        self.sent.append(name)
        self.running[name] = ticket

    def _refuse(self, name: str, refusal: Refused) -> None:
        assert name not in self.refused, f"{name} is refused twice"
        assert name not in self.sent, f"{name} is refused after it was dispatched"
        self.refused[name] = refusal

    def end(self, name: str) -> None:
        """A request in flight is over, and the queue is told."""
        self.running.pop(name).ended()
        self.flow.changed()

    def scale(self, endpoints: int) -> None:
        self.endpoints = endpoints
        self.flow.changed()

    def advance(self, seconds: float) -> None:
        """Ring what is due until then, each at its time."""
        until = self.now + seconds
        while self._alarms and self._alarms[0][0] <= until:
            at, _, alarm = heappop(self._alarms)
            self.now = max(self.now, at)
            if alarm.call is not None:
                alarm.call()
        self.now = until

    @property
    def waiting(self) -> list[str]:
        """Ids of who waits, as bands have it."""
        return [ticket.request.id for band in self.flow._bands for ticket in band.waiting.values()]


def busy(*args: Any, **settings: Any) -> World:
    """A world whose only place is taken by the request `busy`."""
    world = World(*args, **settings)
    for number in range(world.places):
        world.enter(f"busy{number or ''}", priority=100)
    return world


__all__ = ["QUEUED", "World", "band", "busy", "plugin", "rules"]
