"""Who leads, decided without clock, loop or network: what was read and written goes in, what to do next comes out.

Times are seconds of the process's own clock; those in the lease are for people and never compared. Two things keep
leaders from overlapping: who leads counts from before its write was sent and stops after the renew deadline, others
count from after they saw it and wait for the longer lease duration; and every write names the version it replaces.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from epp.kube.lease import RELEASED_S, Claim, Lease, Timings

POLL_AFTER = 1.5
"""Retry periods without news before the lease is asked for: a leader that renews makes news more often."""
JITTER = 0.2
"""Attempts that failed are repeated up to so much later, so that replicas don't keep step."""


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for the lease."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until then, or until there is news."""

    until: float


Step = Read | Wait | Claim


class Elector:
    """One candidate. Ask `step` what to do, do it, tell what came of it, ask again."""

    def __init__(self, identity: str, timings: Timings, chance: Callable[[], float]) -> None:
        self._identity = identity
        self._timings = timings
        self._chance = chance
        self._known = Lease(exists=False)
        self._must_read = True
        self._conflicts = 0
        self._heard_at = -math.inf
        self._free_at = -math.inf
        """When the holder we saw last, if it is another, is taken to be dead."""
        self._try_at = -math.inf
        """No message before."""
        self._led_until = -math.inf

    def leading(self, now: float) -> bool:
        """Whether this candidate leads. True ends by itself: after a long pause nobody has to notice first."""
        return now < self._led_until

    @property
    def led_until(self) -> float:
        """When leading ends if no renewal succeeds; in the past where it does not lead."""
        return self._led_until

    @property
    def heard_at(self) -> float:
        """When there was news last."""
        return self._heard_at

    @property
    def known(self) -> Lease:
        """The lease as it was seen last."""
        return self._known

    @property
    def holds(self) -> bool:
        """Whether the lease, as it was seen last, names this candidate. Leading takes more: a renewal in time."""
        return self._known.holder == self._identity

    def step(self, now: float) -> Step:
        """What to do at `now`."""
        if self._must_read:
            return Read() if now >= self._try_at else Wait(self._try_at)
        due = self._try_at if self.holds else max(self._try_at, self._free_at)
        if now >= due:
            return self._claim()
        poll_at = max(self._try_at, self._heard_at + POLL_AFTER * self._timings.retry_s)
        return Read() if now >= poll_at else Wait(min(due, poll_at))

    def saw(self, lease: Lease, now: float, *, asked_at: float | None = None) -> None:
        """The lease was read, having been asked for at `asked_at`, or came by a watch (None), which may be late."""
        if asked_at is not None:
            self._must_read = False
        if lease.older_than(self._known) and (asked_at is None or asked_at <= self._heard_at):
            return
        self._heard_at = now
        changed, self._known = lease.record != self._known.record, lease
        if changed:
            self._changed(lease, now)

    def wrote(self, lease: Lease, now: float, *, sent_at: float) -> None:
        """A claim sent at `sent_at` was accepted; `lease` is the answer."""
        if lease.older_than(self._known) or lease.holder != self._identity:
            # Somebody has changed it since: look before claiming anything.
            self._must_read, self._try_at = True, now
            return
        self._known, self._heard_at, self._free_at = lease, now, -math.inf
        self._must_read, self._conflicts = False, 0
        self._led_until = sent_at + self._timings.renew_deadline_s
        self._try_at = sent_at + self._timings.retry_s

    def failed(self, now: float, *, conflict: bool = False) -> None:
        """A request failed or was not answered; `conflict` = the lease is not what we thought."""
        self._must_read = self._must_read or conflict
        self._conflicts += conflict
        at_once = conflict and self._conflicts == 1
        self._try_at = now if at_once else now + self._timings.retry_s * (1 + JITTER * self._chance())

    def resign(self) -> Claim | None:
        """Lead no more; returns what gives the lease up, if it is ours."""
        self._led_until = -math.inf
        if not self.holds:
            return None
        return Claim(self._known, "", RELEASED_S, self._known.transitions)

    def _changed(self, lease: Lease, now: float) -> None:
        if self.holds:
            self._free_at = -math.inf
        elif lease.exists:
            self._led_until, self._conflicts = -math.inf, 0
            mine = self._timings.duration_s
            self._free_at = now + max(mine, lease.duration_s or mine) if lease.holder else -math.inf
        if self._led_until > now and not lease.exists:
            # Deleted under us: be there before somebody else is. Others let the holder they saw live on until then.
            self._try_at = now

    def _claim(self) -> Claim:
        lease, duration_s = self._known, int(self._timings.duration_s)
        if self.holds:
            return Claim(lease, self._identity, duration_s, lease.transitions, lease.acquired)
        return Claim(lease, self._identity, duration_s, lease.transitions + 1 if lease.exists else 0)
