"""Passive health: an endpoint that fails is left out for a growing while, then tried with one request.

A dead engine has an empty queue and so looks best to every load scorer; failures seen on our own stream (and refused
scrapes) say otherwise. Time and chance are arguments.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np

from epp.types import Mask

IN_A_ROW = 3
"""So many failures without a success between them."""
LEAST_SEEN = 10.0
"""Or over half of at least this many outcomes, old ones counting less."""
HALF_LIFE_S = 10.0
FIRST_COOLING_S = 1.0
LONGEST_COOLING_S = 30.0
PROBE_LIMIT_S = 30.0
"""A probe without an outcome for so long is given up and another is sent."""
LARGEST_SHARE = 0.5
FORGIVEN_AFTER = 10
"""So many successes in a row bring the next cooling back to the shortest."""


class Record:
    """What is remembered of one endpoint that failed at least once."""

    __slots__ = (
        "at", "cooling", "failed", "in_a_row", "level", "probing", "seen", "successes", "until",
    )  # fmt: skip

    def __init__(self, at: float) -> None:
        self.in_a_row = 0
        self.successes = 0
        """Since the last failure."""
        self.failed = 0.0
        self.seen = 0.0
        """Decayed counts as of `at`."""
        self.at = at
        self.level = 0
        """Coolings since the endpoint was last forgiven."""
        self.cooling = False
        self.until = 0.0
        """End of the cooling, or of the patience with the probe under way."""
        self.probing = False

    def count(self, now: float, failed: bool) -> None:
        """One more outcome; those before it count for less by now."""
        decay = 0.5 ** (max(0.0, now - self.at) / HALF_LIFE_S)
        self.failed = self.failed * decay + failed
        self.seen = self.seen * decay + 1.0
        self.at = now

    @property
    def bad(self) -> bool:
        """It has failed so often that it must cool."""
        return self.in_a_row >= IN_A_ROW or (self.seen >= LEAST_SEEN and self.failed > self.seen / 2)


class Health:
    """Which endpoints cool. `largest_share` of the pool at most is ever left out; if all cool, none is."""

    def __init__(self, rng: random.Random, *, largest_share: float = LARGEST_SHARE) -> None:
        self._rng = rng
        self._largest_share = largest_share
        self._records: dict[str, Record] = {}
        self._cooling: dict[str, Record] = {}

    def failure(self, key: str, now: float) -> None:
        """A 5xx, a reset, a missing response or a refused scrape of `key`."""
        record = self._records.setdefault(key, Record(now))
        record.count(now, failed=True)
        record.in_a_row += 1
        record.successes = 0
        if record.cooling and not record.probing:
            return
        if record.probing or record.bad:
            self._cool(key, record, now)

    def success(self, key: str, now: float) -> None:
        """`key` answered with anything below 500."""
        record = self._records.get(key)
        if record is None:
            return
        record.count(now, failed=False)
        record.in_a_row = 0
        record.successes += 1
        if record.probing:
            record.cooling = record.probing = False
            del self._cooling[key]
            record.failed = record.seen = 0.0
        if record.successes >= FORGIVEN_AFTER and not record.cooling:
            del self._records[key]

    def picked(self, key: str, now: float) -> bool:
        """`key` was picked; True if that request is its probe."""
        record = self._records.get(key)
        if record is None or not record.cooling or now < record.until:
            return False
        record.probing = True
        record.until = now + PROBE_LIMIT_S
        return True

    def left_out(self, rows: Mapping[str, int], now: float) -> Mask | None:
        """True where an endpoint must not be picked; None if that is nowhere. `rows` = row of each endpoint's key."""
        if not self._cooling:
            return None
        cooling = [
            (record.until, rows[key]) for key, record in self._cooling.items() if now < record.until and key in rows
        ]
        most = int(len(rows) * self._largest_share)
        if not cooling or not most or len(cooling) == len(rows):
            return None
        mask = np.zeros(len(rows), dtype=np.bool_)
        mask[[row for _, row in sorted(cooling, reverse=True)[:most]]] = True
        return mask

    def cooling(self, now: float) -> dict[str, float]:
        """Seconds each cooling endpoint still has to wait (0 = a probe is due or under way)."""
        return {key: 0.0 if record.probing else max(0.0, record.until - now) for key, record in self._cooling.items()}

    def forget(self, key: str) -> None:
        """The endpoint is gone."""
        self._records.pop(key, None)
        self._cooling.pop(key, None)

    def _cool(self, key: str, record: Record, now: float) -> None:
        self._cooling[key] = record
        length = min(LONGEST_COOLING_S, FIRST_COOLING_S * 2.0**record.level)
        # No further: after a night of failed probes 2.0 to that power would be no number.
        record.level += length < LONGEST_COOLING_S
        record.cooling, record.probing = True, False
        record.until = now + length * self._rng.uniform(0.9, 1.1)
