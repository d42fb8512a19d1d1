"""Several electors, one API server and a bad network between them, in virtual time and without asyncio."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from epp.kube.lease import Claim, Lease, Timings
from epp.kube.lease_elector import Elector, Read, Wait

TIMINGS = Timings()


@dataclass
class Network:
    """What happens to messages; may be changed while they are on their way."""

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    slowest_s: float = 0.01
    lost: float = 0.0
    watch_lost: float = 0.0

    def delay_s(self) -> float:
        return self.chance.uniform(0.0, self.slowest_s)


class Candidate:
    """An elector on a machine of its own: its clock goes at its own rate, and the process may be stopped."""

    def __init__(self, world: World, name: str, *, rate: float = 1.0) -> None:
        self.world, self.name, self._rate = world, name, rate
        self.elector = Elector(name, TIMINGS, world.network.chance.random)
        self.alive = True
        self.cut_off = False
        self._stopped_until = 0.0
        self._asked = 0
        self._busy = False
        self._wakes = 0

    @property
    def now(self) -> float:
        return 1_000.0 + self._rate * self.world.now

    @property
    def leading(self) -> bool:
        """Also while the process is stopped: what it last believed must be true."""
        return self.alive and self.elector.leading(self.now)

    def stop_for(self, seconds: float) -> None:
        self._stopped_until = max(self._stopped_until, self.world.now + seconds)

    def does(self, what: Callable[[], None]) -> None:
        """Now, or once the process goes on."""
        if not self.alive:
            return
        if self.world.now < self._stopped_until:
            self.world.at(self._stopped_until, lambda: self.does(what))
            return
        what()

    def act(self) -> None:
        if self._busy:
            return
        step = self.elector.step(self.now)
        if isinstance(step, Wait):
            self._wakes += 1
            mine, seconds = self._wakes, max(0.0, step.until - self.now) / self._rate
            self.world.after(seconds + 1e-6, lambda: self.does(lambda: self.act() if mine == self._wakes else None))
            return
        self._ask(step)

    def _ask(self, step: Read | Claim) -> None:
        self._busy = True
        self._asked += 1
        number, sent_at = self._asked, self.now

        def answered(tell: Callable[[], None]) -> None:
            if number == self._asked and self._busy:
                self._busy = False
                tell()
                self.act()

        def served() -> None:
            tell = self._told(step, sent_at)
            self.world.message(lambda: self.does(lambda: answered(tell)))

        if not self.cut_off:
            self.world.message(served)
        timeout_s = TIMINGS.renew_deadline_s / 2 / self._rate
        self.world.after(timeout_s, lambda: self.does(lambda: answered(lambda: self.elector.failed(self.now))))

    def _told(self, step: Read | Claim, sent_at: float) -> Callable[[], None]:
        """Done at the server; returns what the answer does to the elector."""
        if isinstance(step, Read):
            found = self.world.lease
            return lambda: self.elector.saw(found, self.now, asked_at=sent_at)
        accepted = self.world.put(step)
        if accepted is None:
            return lambda: self.elector.failed(self.now, conflict=True)
        return lambda: self.elector.wrote(accepted, self.now, sent_at=sent_at)

    def watched(self, lease: Lease) -> None:
        if not self.cut_off:
            self.elector.saw(lease, self.now)
            self.act()

    def release(self) -> None:
        """As a process that ends does; it leads no more whether or not the message arrives."""
        if self._busy:
            # An answer that is on its way decides what there is to give up.
            self.world.after(0.01, lambda: self.does(self.release))
            return
        claim = self.elector.resign()
        self.alive = False
        if claim is not None:
            self.world.message(lambda: self.world.put(claim))


class World:
    """The server, the candidates and virtual time. `leaders` is looked at after everything that happens."""

    def __init__(self, network: Network | None = None) -> None:
        self.now = 0.0
        self.network = network or Network()
        self.lease = Lease(exists=False)
        self.candidates: list[Candidate] = []
        self.watch: Callable[[], None] = lambda: None
        self._version = 0
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def add(self, name: str, *, rate: float = 1.0) -> Candidate:
        candidate = Candidate(self, name, rate=rate)
        self.candidates.append(candidate)
        self.after(0.0, lambda: candidate.does(candidate.act))
        return candidate

    @property
    def leaders(self) -> list[str]:
        return [candidate.name for candidate in self.candidates if candidate.leading]

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._numbers), what))

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at(self.now + seconds, what)

    def message(self, arrived: Callable[[], object]) -> None:
        if self.network.chance.random() >= self.network.lost:
            self.after(self.network.delay_s(), lambda: (arrived(), None)[1])

    def put(self, claim: Claim) -> Lease | None:
        """What the API server makes of a write: None = 409."""
        stale = claim.over.exists and claim.over.version != self.lease.version
        if stale or claim.over.exists != self.lease.exists:
            return None
        self.change(
            Lease(claim.holder, claim.duration_s, claim.acquired or f"{self.now}", f"{self.now}", claim.transitions)
        )
        return self.lease

    def change(self, lease: Lease) -> None:
        """Somebody wrote this, or deleted it."""
        self._version += 1
        self.lease = replace(lease, version=str(self._version))
        for candidate in self.candidates:
            self._tell(candidate, self.lease)

    def _tell(self, candidate: Candidate, lease: Lease) -> None:
        if self.network.chance.random() >= self.network.watch_lost:
            self.after(self.network.delay_s(), lambda: candidate.does(lambda: candidate.watched(lease)))

    def run(self, until: float, *, check: Callable[[], None] = lambda: None) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, what = heapq.heappop(self._due)
            what()
            check()
        self.now = until
        check()

    def when(self, true: Callable[[], bool], *, within: float = 60.0) -> float:
        """Seconds until it is true."""
        began = self.now
        while not true():
            assert self._due, "nothing happens any more"
            assert self.now - began <= within, f"not within {within} s"
            self.now, _, what = heapq.heappop(self._due)
            what()
        return self.now - began
