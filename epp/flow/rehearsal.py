"""Policies tried out on made-up requests before they are let at real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epp.flow.band import Band, Flow
from epp.flow.control import FlowControl
from epp.flow.item import Item
from epp.flow.settings import BandRules, FlowRules
from epp.flow.ticket import DISPATCHED, Ticket
from epp.plugins import Plugin, PluginType, shown
from epp.settings import PluginError
from epp.types import Request

ASKED = {
    "fairness": "turn(band, now) must return one of band.flows, or None",
    "ordering": "called with an item, it must return a number or a tuple of numbers, none of them NaN",
    "usage_limit": "called with (saturation, priorities), it must return one number for each priority",
}
"""What each kind owes."""
PRIORITIES = (5, 0, -1)


def rehearse(plugin: Plugin) -> None:
    """Let twelve made-up requests wait, leave and go by the policy; PluginError if it fails anywhere."""
    for place, rule in ASKED.items():
        if place in plugin.places:
            if place == "fairness" and not callable(getattr(plugin.instance, "turn", None)):
                raise PluginError(f"{plugin.name}: its class needs a method turn(band, now) to be a fairness policy")
            failures = _Stage(plugin, place).failures
            if failures:
                raise PluginError(f"{plugin.name}: {rule}; it failed with {failures[0]}")


class _BestHead:
    def turn(self, band: Band, now: float) -> Flow | None:
        return band.best()


def _by_arrival(item: Item) -> float:
    return item.queued_at


def _up_to_one(saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
    return (1.0,) * len(priorities)


def _safe(place: str, instance: Any) -> Plugin:
    return Plugin(f"safe {place}", PluginType(place, (place,), type(instance), (), "epp"), instance, {})


class _Stage:
    """A pool with one place, and an observer that hears of failures."""

    def __init__(self, plugin: Plugin, place: str) -> None:
        self.failures: list[str] = []
        self._now = 1.0
        self._taken: list[Ticket] = []
        stands_in = {place: plugin}
        policy = {
            name: stands_in.get(name, _safe(name, instance))
            for name, instance in (("fairness", _BestHead()), ("ordering", _by_arrival), ("usage_limit", _up_to_one))
        }
        self._flow = FlowControl(
            FlowRules(policy["usage_limit"], BandRules(policy["fairness"], policy["ordering"]), ttl_s=60.0),
            now=lambda: self._now,
            saturation=lambda: float(len(self._taken)),
            pool_size=lambda: 1,
            later=lambda _, __: self,
            observer=self,
        )
        self._play()

    def _play(self) -> None:
        tickets = [self._come(number) for number in range(12)]
        for ticket in tickets[3::4]:
            ticket.cancel()
        while self._taken:
            self._now += 1.0
            self._taken.pop().ended()
            self._flow.changed()
        self._flow.close()

    def _come(self, number: int) -> Ticket:
        self._now += 0.5
        asked = Request(
            id=f"made-up-{number}",
            priority=PRIORITIES[number % 3],
            fairness_id=f"flow-{number % 4}",
            slo_ttft_ms=200.0 if number % 2 else None,
            received_at=self._now - 0.1,
        )
        ticket: Ticket
        ticket = self._flow.enter(asked, 100 + number, lambda: self._taken.append(ticket), lambda _: None)
        if ticket.state is DISPATCHED:
            self._taken.append(ticket)
        return ticket

    def failed(self, plugin: str, error: BaseException) -> None:
        self.failures.append(shown(error))

    def _unheard(self, *_: object) -> None: ...

    queued: Callable[..., None] = _unheard
    left: Callable[..., None] = _unheard
    cycle: Callable[..., None] = _unheard
    evicting: Callable[..., None] = _unheard
    evicted: Callable[..., None] = _unheard

    def cancel(self) -> None:
        """As a timer, which never rings."""
