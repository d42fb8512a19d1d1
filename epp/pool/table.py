"""The pool: who the endpoints are and how busy, as columns. Synchronous, one owner, no clock of its own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from epp.pool.ledger import Ledger
from epp.pool.load import Readings
from epp.pool.unseen import Close, Unseen
from epp.types import COLUMNS, Change, Column, Endpoint, Endpoints, Mask, Reading

STALE_AFTER_S = 2.0


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
        self._read = Readings(0)
        self._show_all()
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
        self._show_all()
        self._derived = {}
        keys = list(by_key)
        for row in np.flatnonzero(old_rows < 0).tolist():
            load = self.ledger.load(keys[row])
            self._read.inflight[row], self._read.inflight_tokens[row] = load.requests, load.tokens
            self._read.note(row)
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
            self._read.note(row)
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
        read.waiting[row], read.running[row], read.kv_usage[row] = read.rows[row].net()
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
        self._tokens_at[row] = tokens
        known = self._read.rows[row]
        if known.inflight == requests:
            # The load columns rest on requests alone.
            return
        known.inflight = float(requests)
        self._inflight_at[row] = requests
        if not self._all_known:
            self._stale = True
        elif not self._stale:
            self._waiting_at[row], self._running_at[row], self._kv_usage_at[row] = known.net()

    def _show_all(self) -> None:
        """Show the readings' own columns, and of the load what `net` makes of them."""
        n = len(self._read.rows)
        self._waiting, self._running, self._kv_usage = np.zeros(n), np.zeros(n), np.zeros(n)
        # Numbers are written through memoryviews, which take two thirds of an array's time.
        self._waiting_at, self._running_at = _numbers(self._waiting), _numbers(self._running)
        self._kv_usage_at = _numbers(self._kv_usage)
        self._inflight_at, self._tokens_at = _numbers(self._read.inflight), _numbers(self._read.inflight_tokens)
        shown: dict[str, Column] = {name: getattr(self._read, name) for name in COLUMNS}
        shown |= {"waiting": self._waiting, "running": self._running, "kv_usage": self._kv_usage}
        self._views = {name: _read_only(values) for name, values in shown.items()}

    def _show(self, row: int) -> None:
        """Bring the load of one row up to date; right only while every row is known."""
        self._waiting[row], self._running[row], self._kv_usage[row] = self._read.rows[row].net()

    def _refresh(self, now: float) -> None:
        read = self._read
        limit = np.maximum(self._stale_after_s, 3.0 * read.interval_s)
        self._known = now - read.read_at <= limit
        self._known.flags.writeable = False
        self._waiting[:], self._running[:], self._kv_usage[:] = read.net_all()
        known = self._known
        self._all_known = bool(known.all())
        if not self._all_known:
            # The mean of the fresh ones where nothing fresh is known.
            for column in (self._waiting, self._running, self._kv_usage):
                column[~known] = column[known].mean() if known.any() else 0.0
        self._expires_at = float((read.read_at + limit)[known].min()) if known.any() else np.inf
        self._stale = False


def _numbers(column: Column) -> memoryview[float]:
    return cast("memoryview[float]", column.data)


def _read_only(values: Column) -> Column:
    view = values.view()
    view.flags.writeable = False
    return view
