"""The pool: who the endpoints are and how busy, as columns. Synchronous, one owner, no clock of its own.

A reading is seconds old when it is used, so `waiting`, `running` and `kv_usage` are the reading corrected by what this
picker sent and saw finish since the scrape went out (`net_load`, `net_kv`); with nothing sent or finished they equal
the reading.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import numpy.typing as npt

from epp.pool.ledger import Ledger
from epp.pool.unseen import Close, Unseen
from epp.types import COLUMNS, Change, Column, Endpoint, Endpoints, Mask, Reading

NEVER = -1e9
"""`read_at` of an endpoint that was never read, in seconds."""
STALE_AFTER_S = 2.0
Number = Any
"""A float, or a column: `net_load` is the same arithmetic for both."""
Choose = Callable[[Any, Any], Any]
FIRST_SEATS = 8.0
"""What an engine is taken to run at once before anything is known of it."""
LOAD = ("waiting", "running", "kv_usage")
_READ = (
    *COLUMNS, "noted", "inflight_then", "most_running", "queued_once", "kv_each",
)  # fmt: skip
"""The columns of _Readings."""
"""Columns that hold the mean of the fresh ones where nothing fresh is known."""


def net_load(
    waiting: Number, running: Number, net: Number, most_running: Number, *, least: Choose = min, most: Choose = max
) -> tuple[Any, Any]:
    """(waiting, running) as they should be now, given a reading and `net` = in flight now - in flight then.

    What was sent since fills the free seats first (`most_running` is the most the engine was ever seen to run), the
    rest queues; what finished since frees seats. Never below 0. Numbers, or columns with numpy's minimum and maximum.
    """
    free = most(0.0, most_running - running)
    return waiting + most(0.0, net - free), most(0.0, running + least(net, free))


def net_kv(kv_usage: Number, moved: Number, each: Number, *, least: Choose = min, most: Choose = max) -> Any:
    """KV usage as it should be now: as read, and `each` more for every request that took a seat since (`moved`)."""
    return least(1.0, most(0.0, kv_usage + moved * each))


class Pool:
    """Endpoints and their load. `apply` changes who is there, `update` what is known, `snapshot` reads."""

    def __init__(self, *, stale_after_s: float = STALE_AFTER_S) -> None:
        self.ledger = Ledger(self._inflight_changed)
        self._unseen = Unseen()
        self.synced = False
        """Whether it is known which endpoints there are: a feed told, and did not say later that it no longer knows."""
        self._stale_after_s = stale_after_s
        self._records: tuple[Endpoint, ...] = ()
        self._row: dict[str, int] = {}
        self._read = _Readings(0)
        self._shown = {name: np.zeros(0) for name in COLUMNS}
        self._views = {name: _read_only(values) for name, values in self._shown.items()}
        self._known: Mask = np.zeros(0, dtype=np.bool_)
        self._derived: dict[Hashable, npt.NDArray[Any]] = {}
        self._all_known = True
        self._stale = True
        self._expires_at = 0.0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, key: object) -> bool:
        return key in self._row

    def endpoint(self, key: str) -> Endpoint | None:
        row = self._row.get(key)
        return None if row is None else self._records[row]

    def apply(self, change: Change) -> None:
        """Add, alter and remove endpoints. What is known of those that stay is kept."""
        self.synced = True
        by_key = dict(zip(self._row, self._records, strict=True))
        altered = {record.key: record for record in change.present if by_key.get(record.key) != record}
        by_key.update(altered)
        gone = [key for key in change.gone if by_key.pop(key, None) is not None]
        if not (altered or gone):
            return
        old_rows = np.array([self._row.get(key, -1) for key in by_key], dtype=np.intp)
        self._records = tuple(by_key.values())
        self._row = dict(zip(by_key, range(len(by_key)), strict=True))
        self._read = self._read.rearranged(old_rows)
        self._shown = {name: np.zeros(len(by_key)) for name in COLUMNS}
        self._views = {name: _read_only(values) for name, values in self._shown.items()}
        self._derived = {}
        keys = list(by_key)
        for row in np.flatnonzero(old_rows < 0).tolist():
            load = self.ledger.load(keys[row])
            self._read.inflight[row], self._read.inflight_tokens[row] = load.requests, load.tokens
        self._stale = True

    def lost(self) -> None:
        """It is no longer known which endpoints there are, until `apply` tells."""
        self.synced = False

    def sent(self, key: str) -> None:
        """A scrape of `key` goes out now: what is in flight at this moment is what its answer will include."""
        self._unseen.sent(key)
        row = self._row.get(key)
        if row is not None:
            self._read.noted[row] = self._read.inflight[row]

    def hold(self, key: str, close: Close, now: float) -> None:
        """Nobody will tell when this request ends: `close` is called once it need not count as in flight any more."""
        self._unseen.hold(key, close, now)

    def update(self, key: str, reading: Reading, now: float, interval_s: float) -> None:
        """The scrape of `key` came back; `interval_s` is how often it is read just now. Unknown keys are ignored."""
        row = self._row.get(key)
        if row is None:
            return
        self._read.store(row, reading, now, interval_s)
        for close in self._unseen.told(key):
            # It counts as read from now on: neither as sent since, nor as finished.
            self._read.inflight_then[row] -= 1
            close()
        if self._stale or not self._all_known:
            self._stale = True
        else:
            self._show(row)

    def reported(self, key: str, reading: Reading, now: float) -> None:
        """The engine told its load in a response: as of now, with what is not told carried on as corrected."""
        row = self._row.get(key)
        if row is None:
            return
        read = self._read
        read.waiting[row], read.running[row], read.kv_usage[row] = read.net(row)
        read.store(row, reading, now, float(read.interval_s[row]), noted=float(read.inflight[row]))
        self._stale = True

    def snapshot(self, now: float) -> Endpoints:
        """The endpoints as of `now`; columns are live until the next change, so use it without an await between."""
        if self._unseen.due <= now:
            for close in self._unseen.expired(now):
                close()
        if self._stale or now > self._expires_at:
            self._refresh(now)
        return Endpoints(
            self._records,
            columns=self._views,
            known=self._known,
            loras=self._read.loras,
            attributes=self._read.attributes,
            derived=self._derived,
            now=now,
            rows=self._row,
        )

    def _inflight_changed(self, key: str, requests: int, tokens: float) -> None:
        row = self._row.get(key)
        if row is None:
            return
        read, shown = self._read, self._shown
        read.inflight_tokens[row] = shown["inflight_tokens"][row] = tokens
        if read.inflight.item(row) == requests:
            # The load columns rest on requests alone.
            return
        read.inflight[row] = shown["inflight"][row] = requests
        if not self._all_known:
            self._stale = True
        elif not self._stale:
            shown["waiting"][row], shown["running"][row], shown["kv_usage"][row] = read.net(row)

    def _show(self, row: int) -> None:
        """Bring one row up to date; right only while every row is known."""
        for name in COLUMNS:
            self._shown[name][row] = getattr(self._read, name)[row]
        shown = self._shown
        shown["waiting"][row], shown["running"][row], shown["kv_usage"][row] = self._read.net(row)

    def _refresh(self, now: float) -> None:
        read, shown = self._read, self._shown
        limit = np.maximum(self._stale_after_s, 3.0 * read.interval_s)
        self._known = now - read.read_at <= limit
        self._known.flags.writeable = False
        for name in COLUMNS:
            shown[name][:] = getattr(read, name)
        shown["waiting"][:], shown["running"][:], shown["kv_usage"][:] = read.net_all()
        known = self._known
        self._all_known = bool(known.all())
        if not self._all_known:
            for name in LOAD:
                shown[name][~known] = shown[name][known].mean() if known.any() else 0.0
        self._expires_at = float((read.read_at + limit)[known].min()) if known.any() else np.inf
        self._stale = False


class _Readings:
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
        self.queued_once = np.zeros(n, dtype=np.bool_)
        self.kv_each = np.zeros(n)
        """KV usage per running request, as last read with any running."""
        self.loras: list[tuple[frozenset[str], frozenset[str]]] = [(frozenset(), frozenset())] * n
        self.attributes: dict[str, tuple[Column, Mask]] = {}

    def rearranged(self, old_rows: npt.NDArray[np.intp]) -> _Readings:
        """The same readings in another order; -1 = a row without any."""
        fresh = _Readings(len(old_rows))
        kept = old_rows >= 0
        for name in _READ:
            getattr(fresh, name)[kept] = getattr(self, name)[old_rows[kept]]
        fresh.loras = [self.loras[row] if row >= 0 else (frozenset(), frozenset()) for row in old_rows.tolist()]
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
            self._learn_seats(row, reading.waiting, reading.running)
        self.inflight_then[row] = self.noted[row] if noted is None else noted
        self.read_at[row], self.interval_s[row] = now, interval_s
        if reading.running_loras is not None or reading.waiting_loras is not None:
            self.loras[row] = (reading.running_loras or frozenset(), reading.waiting_loras or frozenset())
        for key, value in reading.attributes.items():
            if key not in self.attributes:
                self.attributes[key] = (np.zeros(len(self.waiting)), np.zeros(len(self.waiting), dtype=np.bool_))
            values, present = self.attributes[key]
            values[row], present[row] = value, True

    def _learn_seats(self, row: int, waiting: float, running: float) -> None:
        """A queue shows how many seats there are. Without one there may be twice as many as are taken; where one was
        seen before, a quarter more."""
        if waiting > 0:
            self.seats[row], self.queued_once[row] = max(running, self.seats[row] / 2.0, 1.0), True
        elif self.queued_once[row]:
            self.seats[row] = max(self.seats[row], 1.25 * running)
        else:
            self.seats[row] = max(self.seats[row], 2.0 * running, FIRST_SEATS)

    def net(self, row: int) -> tuple[float, float, float]:
        """Waiting, running and KV usage of one row as they should be now."""
        net = self.inflight.item(row) - self.inflight_then.item(row)
        read = self.running.item(row)
        waiting, running = net_load(self.waiting.item(row), read, net, self.most_running.item(row))
        return waiting, running, net_kv(self.kv_usage.item(row), running - read, self.kv_each.item(row))

    def net_all(self) -> tuple[Column, Column, Column]:
        """The same of every row."""
        arithmetic = {"least": np.minimum, "most": np.maximum}
        net = self.inflight - self.inflight_then
        waiting, running = net_load(self.waiting, self.running, net, self.most_running, **arithmetic)
        return waiting, running, net_kv(self.kv_usage, running - self.running, self.kv_each, **arithmetic)


def _read_only(values: Column) -> Column:
    view = values.view()
    view.flags.writeable = False
    return view
