"""Calls of policies: one that raises or gives nonsense is told of, and the safe answer stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from epp.flow.ticket import Key, Ticket
from epp.plugins import Plugin

if TYPE_CHECKING:
    from epp.flow.band import Band, Flow

Failed = Callable[[str, BaseException], None]
"""Hears the name of a plug-in that raised, and what."""
NUMBERS = (float, int)
Notice = Callable[["Flow", Ticket], None]


class Ordering:
    """Keys of an ordering policy; the safe one is the order of arrival."""

    def __init__(self, plugin: Plugin, failed: Failed) -> None:
        self._call = plugin.call("ordering")
        self._name = plugin.name
        self._failed = failed

    def key(self, ticket: Ticket) -> Key:
        try:
            told = self._call(ticket)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a stranger's code
            self._failed(self._name, error)
            return (ticket.queued_at, ticket.number)
        if _is_number(told):
            return (told, ticket.number)
        if isinstance(told, tuple) and all(map(_is_number, told)):
            return (*told, ticket.number)
        self._failed(self._name, ValueError(f"wanted a number or a tuple of numbers, none of them NaN; got {told!r}"))
        return (ticket.queued_at, ticket.number)


def _is_number(told: object) -> bool:
    return isinstance(told, NUMBERS) and told == told  # noqa: PLR0124 - NaN is not itself


class Fairness:
    """Turns of a fairness policy; the safe one is the flow whose head comes first in the band's order."""

    def __init__(self, plugin: Plugin, failed: Failed) -> None:
        self._turn = plugin.call("fairness")
        self._name = plugin.name
        self._failed = failed
        self.queued = self._notice(plugin, "queued")
        self.dispatched = self._notice(plugin, "dispatched")
        self.dropped = self._notice(plugin, "dropped")

    def turn(self, band: Band, now: float) -> Flow | None:
        try:
            flow: Flow | None = self._turn(band, now)
            if flow is None or band.flows.get(flow.id) is flow:
                return flow
            error: BaseException = ValueError(f"wanted one of band.flows or None; got {shown_flow(flow)}")
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - a stranger's code
            error = raised
        self._failed(self._name, error)
        return band.best()

    def _notice(self, plugin: Plugin, name: str) -> Notice | None:
        method = plugin.hook(name)
        if method is None:
            return None

        def told(flow: Flow, ticket: Ticket) -> None:
            try:
                method(flow, ticket)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a stranger's code
                self._failed(self._name, error)

        return told


def shown_flow(flow: object) -> str:
    return f"the empty flow {flow.id!r}" if hasattr(flow, "id") else type(flow).__name__


class Limits:
    """Ceilings of a usage limit policy; the safe one is 1."""

    def __init__(self, plugin: Plugin, failed: Failed) -> None:
        self._call = plugin.call("usage_limit")
        self._name = plugin.name
        self._failed = failed
        self._priorities: tuple[int, ...] = ()
        self._ceilings: tuple[float, ...] = ()
        """The latest good answer, and to what."""

    @property
    def latest(self) -> Iterable[tuple[int, float]]:
        """Priorities and the ceilings they had when it was last asked for."""
        return zip(self._priorities, self._ceilings, strict=True)

    def ceilings(self, saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        """One for each priority."""
        try:
            told: Sequence[float] = self._call(saturation, priorities)
            if told is self._ceilings and priorities is self._priorities:
                # Policies often give the same tuple again.
                return self._ceilings
            ceilings: tuple[float, ...] = tuple(told)
            if len(ceilings) == len(priorities) and all(map(_is_number, ceilings)):
                self._priorities, self._ceilings = priorities, ceilings
                return ceilings
            error: BaseException = ValueError(f"wanted {len(priorities)} numbers, none of them NaN; got {ceilings!r}")
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - a stranger's code
            error = raised
        self._failed(self._name, error)
        return (1.0,) * len(priorities)
