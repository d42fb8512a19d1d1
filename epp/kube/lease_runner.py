"""Leader election against the API server: does what the elector says, watches the lease, gives it up at the end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

import msgspec

from epp.kube import UNREADABLE, ApiError
from epp.kube.lease import Claim, Lease, Timings, read_lease, written
from epp.kube.lease_elector import Elector, Read, Wait
from epp.kube.lease_troubles import Troubles

RELEASE_S = 3.0
"""Giving the lease up may take so long while the picker drains; then it ends by itself."""
REJOIN_S = 0.05
FORBIDDEN_S = 30.0
"""A watch that is not allowed is tried again after so long; meanwhile the lease is polled."""

log = logging.getLogger(__name__)


def awake() -> float:
    """Seconds that go on while the machine sleeps, where the system has such a clock."""
    boot: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(boot)


class ApiServer(Protocol):
    """What is needed of epp.kube.client.Api."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> bytes: ...

    def lines(self, path: str, *, query: Mapping[str, str], silent_s: float) -> AsyncIterator[bytes]: ...


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Election:
    """One candidate for one lease: `run` until `release`. `changed` hears whether this process leads."""

    def __init__(
        self,
        api: ApiServer,
        lease: tuple[str, str],
        identity: str,
        timings: Timings | None = None,
        *,
        changed: Callable[[bool], None] = lambda leading: None,
        clock: Callable[[], float] = awake,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`lease` = its namespace and name."""
        self._api = api
        self._namespace, self._name = lease
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"
        self.identity = identity
        self._timings = timings or Timings()
        self._elector = Elector(identity, self._timings, chance)
        self._changed, self._clock, self._wall, self._chance = changed, clock, wall, chance
        self._news = asyncio.Event()
        self._over = False
        self._told = False
        self._unsure = False
        """A write was not answered: it may be in the lease."""
        self._expiry: asyncio.TimerHandle | None = None
        self._troubles = Troubles(f"lease {self._namespace}/{self._name}", clock)
        self._watch: asyncio.Task[None] | None = None
        self._candidacy: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """Whether this process leads at this moment; asks the clock, so a process that was stopped knows at once."""
        return not self._over and self._elector.leading(self._clock())

    @property
    def state(self) -> dict[str, object]:
        """For /debug/kubernetes."""
        known = self._elector.known
        return {
            "lease": f"{self._namespace}/{self._name}",
            "identity": self.identity,
            "leading": self.leading,
            "holder": known.holder,
            "renewTime": known.renewed,
            "transitions": known.transitions,
            "trouble": self._troubles.last,
        }

    async def run(self) -> None:
        """Compete for the lease, hold it, compete again; returns once it is released."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._watch = tasks.create_task(self._follow(), name="lease watch")
                self._candidacy = tasks.create_task(self._compete(), name="lease")
        finally:
            self._over = True
            self._tell()

    async def release(self, limit_s: float = RELEASE_S) -> bool:
        """Lead no more and say so in the lease, so that another may at once; False if that could not be said."""
        self._over = True
        self._news.set()
        self._tell()
        if self._watch is not None:
            self._watch.cancel()
        try:
            async with asyncio.timeout(limit_s):
                # A write on its way decides what there is to give up.
                await self._idle()
                return await self._give_up()
        except TimeoutError:
            log.warning("lease not released: no answer in time; another replica leads when it has run out")
            return False
        finally:
            if self._candidacy is not None:
                self._candidacy.cancel()

    async def _idle(self) -> None:
        if self._candidacy is not None:
            await asyncio.wait({self._candidacy})

    async def _give_up(self) -> bool:
        if self._unsure:
            await self._read()
        for _ in range(3):
            claim = self._elector.resign()
            if claim is None:
                return True
            try:
                await self._put(claim)
            except ApiError as error:
                if error.status != 409:
                    log.warning("lease not released: %s; another replica leads when it has run out", error)
                    return False
                await self._read()
            else:
                log.info("lease released", extra={"lease": self._name})
                return True
        return False

    async def _compete(self) -> None:
        while not self._over:
            step = self._elector.step(self._clock())
            if isinstance(step, Wait):
                await self._wait(step.until)
            elif isinstance(step, Read):
                await self._read()
            else:
                await self._write(step)
            self._tell()

    async def _wait(self, until: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, until - self._clock())):
                await self._news.wait()
        except TimeoutError:
            return
        self._news.clear()

    async def _read(self) -> None:
        asked_at = self._clock()
        try:
            lease = read_lease(await self._request("GET", f"{self._path}/{self._name}"))
        except ApiError as error:
            if error.status != 404:
                self._failed("read", error)
                return
            lease = Lease(exists=False)
        self._unsure = False
        self._troubles.gone("read")
        self._elector.saw(lease, self._clock(), asked_at=asked_at)

    async def _write(self, claim: Claim) -> None:
        sent_at = self._clock()
        try:
            lease = await self._put(claim)
        except ApiError as error:
            self._unsure = error.status == 0 or error.status >= 500
            # 404 where there should be one: it was deleted. Where there is none: the namespace is missing.
            stale = error.status == 409 or (error.status == 404 and claim.over.exists)
            self._failed("write", error, conflict=stale)
            return
        self._unsure = False
        self._troubles.gone("write")
        self._elector.wrote(lease, self._clock(), sent_at=sent_at)

    async def _put(self, claim: Claim) -> Lease:
        body = written(claim, self._name, self._namespace, self._wall())
        if claim.over.exists:
            return read_lease(await self._request("PUT", f"{self._path}/{self._name}", body))
        return read_lease(await self._request("POST", self._path, body))

    async def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        # Two attempts fit into the renew deadline.
        return await self._api.request(method, path, body=body, timeout_s=self._timings.renew_deadline_s / 2)

    def _failed(self, verb: str, error: ApiError, *, conflict: bool = False) -> None:
        self._elector.failed(self._clock(), conflict=conflict)
        if not conflict:
            self._troubles.met(verb, error)

    async def _follow(self) -> None:
        """Watch the lease, so that one that is released is taken at once; without a watch it is polled."""
        while True:
            heard = self._elector.heard_at
            pause_s = self._timings.retry_s * (0.5 + 0.5 * self._chance())
            try:
                await self._watched()
                # The API server ends every watch after some minutes.
                pause_s = REJOIN_S if self._elector.heard_at > heard else pause_s
            except ApiError as error:
                self._troubles.met("watch", error)
                pause_s = FORBIDDEN_S if error.status == 403 else pause_s
            await asyncio.sleep(pause_s)

    async def _watched(self) -> None:
        query = {"watch": "1", "fieldSelector": f"metadata.name={self._name}"}
        async for line in self._api.lines(self._path, query=query, silent_s=2 * self._timings.duration_s):
            self._heard(line)
            self._troubles.gone("watch")

    def _heard(self, line: bytes) -> None:
        try:
            event = msgspec.json.decode(line, type=_Event)
        except UNREADABLE as error:
            raise ApiError(0, f"the watch told no event: {error}") from None
        if event.type == "ERROR":
            raise ApiError(0, f"the watch ended: {bytes(event.object)[:200].decode(errors='replace')}")
        if event.type == "BOOKMARK":
            return
        lease = read_lease(event.object)
        if event.type == "DELETED":
            lease = Lease(exists=False, version=lease.version)
        self._elector.saw(lease, self._clock())
        self._news.set()
        self._tell()

    def _tell(self) -> None:
        """Say so if leading began or ended; and be there when it ends by itself."""
        leading = self.leading
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if leading:
            left_s = self._elector.led_until - self._clock()
            self._expiry = asyncio.get_running_loop().call_later(max(0.0, left_s), self._tell)
        if leading == self._told:
            return
        self._told = leading
        if leading:
            log.info("leading", extra={"lease": self._name, "identity": self.identity})
        else:
            log.log(logging.INFO if self._over else logging.WARNING, "leading no more: %s", self._why())
        self._changed(leading)

    def _why(self) -> str:
        if self._over:
            return "this process ends"
        holder = self._elector.known.holder
        if holder and not self._elector.holds:
            return f"the lease is held by {holder}"
        trouble = self._troubles.last or "no answer"
        return f"the lease could not be renewed for {self._timings.renew_deadline_s:g} s ({trouble})"
