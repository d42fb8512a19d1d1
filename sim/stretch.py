"""What an engine is at until something changes: equal steps advanced in jumps, or a pause."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Stretch:
    """`steps` steps of `step_s` seconds from `began` on; `done` of them are accounted for."""

    began: float
    step_s: float
    steps: int
    done: int = 0

    @property
    def end(self) -> float:
        return self.began + self.steps * self.step_s

    @property
    def next_boundary(self) -> float:
        return self.began + min(self.done + 1, self.steps) * self.step_s

    def passed(self, now: float) -> int:
        """Whole steps over by `now`; exact at the boundaries, whatever division rounds to."""
        if now >= self.end:
            return self.steps
        step = max(self.done, math.floor((now - self.began) / self.step_s))
        while self.began + (step + 1) * self.step_s <= now:
            step += 1
        while step > self.done and self.began + step * self.step_s > now:
            step -= 1
        return step

    def cut(self, now: float) -> None:
        """End at the first boundary that is not before `now`."""
        behind = self.began + self.done * self.step_s < now
        self.steps = min(self.steps, self.done + behind)


@dataclass(slots=True)
class Pause:
    """Nothing is computed until `end`; one step that may be cut at any moment."""

    end: float
    steps: int = 1
    done: int = 0

    @property
    def next_boundary(self) -> float:
        return self.end

    def passed(self, now: float) -> int:
        return int(now >= self.end)

    def cut(self, now: float) -> None:
        self.end = now
