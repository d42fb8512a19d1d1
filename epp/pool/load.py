"""What was last read of each endpoint, and what its load should be by now.

A reading is seconds old when it is used, so `waiting`, `running` and `kv_usage` are the reading corrected by what this
picker sent and saw finish since the scrape went out (`net_load`, `net_kv`); with nothing sent or finished they equal
the reading.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from epp.types import COLUMNS, Column, Mask, Reading

NEVER = -1e9
"""`read_at` of an endpoint that was never read, in seconds."""
FIRST_SEATS = 8.0
"""What an engine is taken to run at once before anything is known of it."""
SEATS_HOLD_S = 30.0
"""How long after a queue the seats it showed are believed to be all."""
_READ = (
    *COLUMNS, "noted", "inflight_then", "most_running", "queued_at", "kv_each",
)  # fmt: skip
"""The columns of Readings."""


def net_load(waiting: float, running: float, net: float, most_running: float) -> tuple[float, float]:
    """(waiting, running) as they should be now, given a reading and `net` = in flight now - in flight then.

    What was sent since fills the free seats first (`most_running` is the most the engine was ever seen to run), the
    rest queues; what finished since frees seats. Never below 0.
    """
    free = max(0.0, most_running - running)
    return waiting + max(0.0, net - free), max(0.0, running + min(net, free))


def net_kv(kv_usage: float, moved: float, each: float) -> float:
    """KV usage as it should be now: as read, and `each` more for every request that took a seat since (`moved`)."""
    return min(1.0, max(0.0, kv_usage + moved * each))


class Row:
    """What the load of one row is made of, as plain numbers: to look into arrays costs more than the arithmetic."""

    __slots__ = ("inflight", "inflight_then", "kv_each", "kv_usage", "most_running", "running", "waiting")

    def __init__(self) -> None:
        self.inflight = self.inflight_then = 0.0
        self.waiting = self.running = self.most_running = 0.0
        self.kv_usage = self.kv_each = 0.0

    def net(self) -> tuple[float, float, float]:
        """Waiting, running and KV usage as they should be now."""
        net = self.inflight - self.inflight_then
        waiting, running = net_load(self.waiting, self.running, net, self.most_running)
        return waiting, running, net_kv(self.kv_usage, running - self.running, self.kv_each)


class Readings:
    """What was last read of each row, uncorrected."""

    def __init__(self, n: int) -> None:
        self.waiting = np.zeros(n)
        self.running = np.zeros(n)
        self.kv_usage = np.zeros(n)
        self.inflight = np.zeros(n)
        self.inflight_tokens = np.zeros(n)
        self.block_tokens = np.zeros(n)
        self.num_blocks = np.zeros(n)
        self.max_loras = np.zeros(n)
        self.interval_s = np.zeros(n)
        self.read_at = np.full(n, NEVER)
        self.noted = np.zeros(n)
        """In flight when the scrape under way was sent."""
        self.inflight_then = np.zeros(n)
        """In flight when the last scrape that came back was sent."""
        self.most_running = np.zeros(n)
        self.seats = np.zeros(n)
        self.queued_at = np.full(n, NEVER)
        """When a reading last showed a queue."""
        self.kv_each = np.zeros(n)
        """KV usage per running request, as last read with any running."""
        self.loras: list[tuple[frozenset[str], frozenset[str]]] = [(frozenset(), frozenset())] * n
        self.attributes: dict[str, tuple[Column, Mask]] = {}
        self.rows = [Row() for _ in range(n)]
        """The same once more, as far as it is asked for often."""

    def rearranged(self, old_rows: npt.NDArray[np.intp]) -> Readings:
        """The same readings in another order; -1 = a row without any."""
        fresh = Readings(len(old_rows))
        kept = old_rows >= 0
        for name in _READ:
            getattr(fresh, name)[kept] = getattr(self, name)[old_rows[kept]]
        fresh.loras = [self.loras[row] if row >= 0 else (frozenset(), frozenset()) for row in old_rows.tolist()]
        for row in range(len(old_rows)):
            fresh.note(row)
        for key, (values, present) in self.attributes.items():
            fresh.attributes[key] = (
                np.where(kept, values[old_rows], 0.0) if len(values) else np.zeros(len(old_rows)),
                (kept & present[old_rows]) if len(present) else np.zeros(len(old_rows), dtype=np.bool_),
            )
        return fresh

    def store(self, row: int, reading: Reading, now: float, interval_s: float, *, noted: float | None = None) -> None:
        """Keep what was told; `noted` = in flight at the time of the reading (default: when its scrape was sent)."""
        for name in ("waiting", "running", "kv_usage", "block_tokens", "num_blocks", "max_loras"):
            value = getattr(reading, name)
            if value is not None:
                getattr(self, name)[row] = value
        self.most_running[row] = max(self.most_running[row], self.running[row])
        if reading.kv_usage is not None and self.running[row] >= 1.0:
            self.kv_each[row] = self.kv_usage[row] / self.running[row]
        if reading.running is not None and reading.waiting is not None:
            self._learn_seats(row, reading.waiting, reading.running, now)
        self.inflight_then[row] = self.noted[row] if noted is None else noted
        self.read_at[row], self.interval_s[row] = now, interval_s
        self.note(row)
        if reading.running_loras is not None or reading.waiting_loras is not None:
            self.loras[row] = (reading.running_loras or frozenset(), reading.waiting_loras or frozenset())
        for key, value in reading.attributes.items():
            if key not in self.attributes:
                self.attributes[key] = (np.zeros(len(self.waiting)), np.zeros(len(self.waiting), dtype=np.bool_))
            values, present = self.attributes[key]
            values[row], present[row] = value, True

    def _learn_seats(self, row: int, waiting: float, running: float, now: float) -> None:
        """A queue shows how many seats there are. Without one there may be twice as many as are taken; where one was
        seen before, a quarter more, if more are taken than were known or the queue was long ago: to ask again at once
        would overfill an engine whose last seats are kept free for some."""
        seats = self.seats.item(row)
        if waiting > 0:
            self.seats[row], self.queued_at[row] = max(running, seats / 2.0, 1.0), now
        elif self.queued_at.item(row) == NEVER:
            self.seats[row] = max(seats, 2.0 * running, FIRST_SEATS)
        elif running > seats or now - self.queued_at.item(row) > SEATS_HOLD_S:
            self.seats[row] = max(seats, 1.25 * running)

    def note(self, row: int) -> None:
        """This row's numbers have changed."""
        known = self.rows[row]
        known.inflight, known.inflight_then = self.inflight.item(row), self.inflight_then.item(row)
        known.waiting, known.running = self.waiting.item(row), self.running.item(row)
        known.most_running = self.most_running.item(row)
        known.kv_usage, known.kv_each = self.kv_usage.item(row), self.kv_each.item(row)

    def net_all(self) -> tuple[Column, Column, Column]:
        """`Row.net` of every row."""
        net = self.inflight - self.inflight_then
        free = np.maximum(0.0, self.most_running - self.running)
        waiting: Column = self.waiting + np.maximum(0.0, net - free)
        running: Column = np.maximum(0.0, self.running + np.minimum(net, free))
        kv_usage: Column = self.kv_usage + (running - self.running) * self.kv_each
        return waiting, running, np.minimum(1.0, np.maximum(0.0, kv_usage))
