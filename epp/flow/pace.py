"""How fast requests have been leaving the queue: what a client is told about when to try again rests on it."""

from __future__ import annotations

WINDOW_S = 5.0
LONGEST_S = 60.0


class Pace:
    """Requests dispatched a second over the last one to two windows."""

    def __init__(self) -> None:
        self._began = 0.0
        self._count = 0
        self._before = 0

    def note(self, now: float) -> None:
        """One was dispatched."""
        if now - self._began >= WINDOW_S:
            self._turn(now)
        self._count += 1

    def clears_in_s(self, ahead: int, now: float) -> float | None:
        """When so many will be gone, 1 to LONGEST_S; None if none went lately."""
        if now - self._began >= WINDOW_S:
            self._turn(now)
        went = self._before + self._count
        if not went:
            return None
        per_s = went / (WINDOW_S + now - self._began)
        return min(max(ahead / per_s, 1.0), LONGEST_S)

    def _turn(self, now: float) -> None:
        windows = (now - self._began) // WINDOW_S
        self._before = self._count if windows < 2 else 0
        self._count = 0
        self._began += windows * WINDOW_S
