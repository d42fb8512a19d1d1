"""Requests whose responses are not shown (`--response-phase none`): how long they count as in flight.

A request counts until a reading tells of it: the first one that was asked for after the request had left, since by then
it is among those that the engine says it runs or keeps waiting. Where no such reading comes, it counts for HOLD_S.
"""

from __future__ import annotations

import math
from collections.abc import Callable

HOLD_S = 5.0
"""More than the rarest readings are apart, so that it matters only where there are none."""
Close = Callable[[], None]
"""Gives back what one request was charged at one endpoint."""


class Unseen:
    """By endpoint key: those that left since a scrape was last sent, and those that the scrape under way will tell."""

    def __init__(self) -> None:
        self._left: dict[str, list[tuple[float, Close]]] = {}
        self._covered: dict[str, list[tuple[float, Close]]] = {}
        self.due = math.inf
        """When `expired` has something to give back, at the earliest."""

    def hold(self, key: str, close: Close, now: float) -> None:
        self._left.setdefault(key, []).append((now + HOLD_S, close))
        self.due = min(self.due, now + HOLD_S)

    def sent(self, key: str) -> None:
        """A scrape of `key` goes out."""
        if key in self._left:
            self._covered.setdefault(key, []).extend(self._left.pop(key))

    def told(self, key: str) -> list[Close]:
        """The scrape of `key` came back: whom it tells of."""
        return [close for _, close in self._covered.pop(key, ())]

    def expired(self, now: float) -> list[Close]:
        """Those who have counted long enough."""
        found: list[Close] = []
        self.due = math.inf
        for held in (self._left, self._covered):
            for key, entries in list(held.items()):
                found += [close for until, close in entries if until <= now]
                kept = held[key] = [entry for entry in entries if entry[0] > now]
                if kept:
                    self.due = min(self.due, kept[0][0])
                else:
                    del held[key]
        return found
