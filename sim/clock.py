"""Virtual time: a heap of timed actions."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

Action = Callable[[], None]


class Clock:
    """Runs actions in the order of their times; `now` jumps from one to the next. Seconds."""

    __slots__ = ("_actions", "_count", "now")

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._actions: list[tuple[float, int, Action]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._actions)

    def at(self, when: float, action: Action) -> None:
        """Run `action` at `when`; of two at the same time the one asked for first runs first."""
        if not when >= self.now:
            raise ValueError(f"cannot act at {when}: it is {self.now} already; give a time from then on")
        self._count += 1
        heapq.heappush(self._actions, (when, self._count, action))

    def run(self, until: float = math.inf) -> None:
        """Run every action up to and including `until`, also those they add; then `now` is `until` if finite."""
        actions = self._actions
        while actions and actions[0][0] <= until:
            self.now, _, action = heapq.heappop(actions)
            action()
        if math.isfinite(until):
            self.now = max(self.now, until)
