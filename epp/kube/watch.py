"""List, then watch: what objects of one kind there are, kept true until cancelled.

What is known stays known while the server is away, refuses or sends nonsense; only an answer that says an object or a
kind is gone takes it away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from epp.kube import ApiError
from epp.kube.around import Around, Hears, Pace
from epp.kube.events import Broken, Decoder, Seen, by_name, older
from epp.kube.records import Record

__all__ = ["Around", "Changes", "Follower", "Hears", "Kind", "Pace", "Phase", "Server", "Watch"]
log = logging.getLogger("epp.kube")
R = TypeVar("R", bound=Record)
C_contra = TypeVar("C_contra", bound=Record, contravariant=True)
Phase = Literal["starting", "synced", "lagging", "absent", "forbidden", "failing"]
"""Nothing known yet · listed and watched · listed, but the watch is cut · the server has no such kind · we may not ·
never listed, and the last attempt failed."""
PAGE = 500
"""Objects a page: half a megabyte of pods or so, decoded in a millisecond or two."""
PATIENT = 3
"""So often an error is taken for a passing one: then a watch is listed anew, a kind is believed to be gone."""


class Server(Protocol):
    """What is used of the API server."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> bytes: ...

    def stream(
        self, path: str, *, query: Mapping[str, str], silent_s: float
    ) -> AbstractAsyncContextManager[AsyncIterator[list[bytes]]]: ...


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """Which objects to watch."""

    resource: str
    """As people call it: `pods`, `inferencepools.inference.networking.k8s.io`."""
    path: str
    record: type[R]
    query: Mapping[str, str] = field(default_factory=dict)
    """Selectors."""


Changes = Mapping[str, R | None]
"""By name; None = gone."""


class Follower(Protocol[C_contra]):
    """Who wants to know. Called on the event loop, must not wait."""

    def changed(self, changes: Changes[C_contra]) -> None:
        """Objects came, changed or went since this was called last."""

    def moved(self) -> None:
        """The watch stands otherwise than before: its first list is complete, its `phase` is another."""


class Watch(Generic[R]):
    """Objects of one kind: `known` by name, and a follower who hears what becomes of them."""

    def __init__(self, server: Server, kind: Kind[R], follower: Follower[R], around: Around) -> None:
        self.kind = kind
        self.known: dict[str, R] = {}
        self.broken: dict[str, str] = {}
        """Problem by name. The former version of such an object stays in `known`."""
        self.listed = False
        self.phase: Phase = "starting"
        self.problem = ""
        self.heard_at: float | None = None
        self._server = server
        self._follower = follower
        self._hears = around.hears
        self._clock = around.clock
        self._chance = around.chance
        self._pace = around.pace
        self._decoder = Decoder(kind.record)
        self._version = ""
        self._attempts = 0
        self._absences = 0
        self._cut = False
        """The connection was lost: behind the address another server may be, or the same with another state."""

    @property
    def decided(self) -> bool:
        """Whether it is known what there is: listed at least once, or nothing that could be listed."""
        return self.listed or self.phase in {"absent", "forbidden"}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = self._clock()
            try:
                if self._version and self._cut and await self._behind():
                    self._version = ""
                if not self._version:
                    await self._list()
                await self._follow()
                # A server that ends each watch at once must not be asked in a tight loop.
                wait_s = self._wait_s() if self._clock() - began < self._pace.first_s else 0.0
            except ApiError as error:
                self._failed(error)
                wait_s = self._patience(error)
            await asyncio.sleep(wait_s)

    async def _behind(self) -> bool:
        """Whether the server has come less far than we, since its state was lost or restored.

        A watch would be silent until it has come as far, and would not tell what happened before.
        """
        query = {**self.kind.query, "limit": "1"}
        body = await self._server.request("GET", self.kind.path, query=query, timeout_s=self._pace.list_s)
        return older(self._decoder.page(body)[0].resource_version, self._version)

    async def _list(self) -> None:
        found: dict[str, R | Broken] = {}
        query = {**self.kind.query, "limit": str(PAGE)}
        while True:
            body = await self._server.request("GET", self.kind.path, query=query, timeout_s=self._pace.list_s)
            meta, objects = self._decoder.page(body)
            found.update(by_name(objects))
            if not meta.next:
                break
            query["continue"] = meta.next
            await asyncio.sleep(0)
        self._version = meta.resource_version
        self._absences = 0
        self._take(found, gone=[name for name in (*self.known, *self.broken) if name not in found])
        if not self.listed:
            self.listed = True
            self._follower.moved()

    async def _follow(self) -> None:
        lasts_s = int(self._pace.lasts_s * (1.0 + self._chance())) or 1
        query = {
            **self.kind.query,
            "watch": "true",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(lasts_s),
        }
        async with self._server.stream(self.kind.path, query=query, silent_s=self._pace.silent_s) as batches:
            self._cut = False
            self._stands("synced")
            async for lines in batches:
                self._heard([seen for line in lines if line and (seen := self._decoder.seen(line))])

    def _heard(self, batch: Sequence[Seen[R]]) -> None:
        self._attempts = 0
        present: dict[str, R | Broken] = {}
        gone: dict[str, None] = {}
        for seen in batch:
            self._version = seen.version or self._version
            for name, found in by_name([seen.object] if seen.object else []):
                # The last word on an object counts, whatever was said of it before in the same batch.
                present.pop(name, None)
                gone.pop(name, None)
                if seen.gone:
                    gone[name] = None
                else:
                    present[name] = found
        self._take(present, gone=list(gone))

    def _take(self, present: Mapping[str, R | Broken], *, gone: Sequence[str]) -> None:
        """Note what there is now and tell what changed."""
        self.heard_at = self._clock()
        changes: dict[str, R | None] = {name: None for name in gone if self.known.pop(name, None)}
        broken_before = len(self.broken)
        for name in gone:
            self.broken.pop(name, None)
        for name, found in present.items():
            if isinstance(found, Broken):
                self._complain(found)
            elif self.known.get(name) != found:
                self.broken.pop(name, None)
                self.known[name] = changes[name] = found
        if changes or len(self.broken) != broken_before:
            self._tell()
        if changes:
            self._follower.changed(changes)

    def _complain(self, found: Broken) -> None:
        if self.broken.get(found.name) == found.problem:
            return
        self.broken[found.name] = found.problem
        instead = "what it said before counts" if found.name in self.known else "it is left out"
        log.error(
            "%s %s can't be used: %s; %s until it is mended", self.kind.resource, found.name, found.problem, instead
        )

    def _failed(self, error: ApiError) -> None:
        if error.expired:
            # Not a failure of anybody: so much has changed that only a new list tells what there is.
            self._version = ""
            self._hears.watch_failed(self.kind.resource, "expired")
            return
        self._hears.watch_failed(self.kind.resource, _cause(error))
        self._cut = self._cut or not error.status
        if error.status == 404:
            self._version = ""
            self._missing()
        elif error.status == 403:
            self._version = ""
            self._stands("forbidden", f"{error.message}; give the service account get, list and watch")
        else:
            if self._attempts >= PATIENT and (error.status or error.reason == "Garbled"):
                # As when etcd was restored: the server knows no such version, and may never.
                self._version = ""
            self._stands("lagging" if self.listed else "failing", str(error))

    def _missing(self) -> None:
        """The server has no such kind. If it had, that is believed when it says so again: one that starts may err."""
        self._absences += 1
        if self.listed and self._absences < PATIENT:
            self._stands(
                "lagging", "the API server says that it has no such kind; what was there counts until it insists"
            )
            return
        self._take({}, gone=list({**self.known, **self.broken}))
        self.listed = False
        self._stands("absent", "the API server has no such kind; it is asked again now and then")

    def _patience(self, error: ApiError) -> float:
        if error.expired and not self._attempts:
            self._attempts = 1
            return 0.0
        if error.status == 404:
            # Who installs a picker installs the kinds as well, a moment before or after. One that was there must be
            # missed for a while.
            most_s = self._pace.absent_s
            return most_s * (0.5 + self._chance()) if self.listed else self._grown_s(self._absences, most_s)
        return max(error.retry_after_s or 0.0, self._wait_s())

    def _wait_s(self) -> float:
        self._attempts += 1
        return self._grown_s(self._attempts, self._pace.most_s)

    def _grown_s(self, times: int, most_s: float) -> float:
        """Doubled each time. The exponent is held: two to the power of a day's attempts is no float."""
        return min(most_s, self._pace.first_s * 2.0 ** min(times - 1, 30)) * (0.5 + 0.5 * self._chance())

    def _stands(self, phase: Phase, problem: str = "") -> None:
        """Told once, when it changes; trouble that was seen before is not told again in other words."""
        changed, self.problem = phase != self.phase, problem
        if changed:
            before, self.phase = self.phase, phase
            if phase == "synced":
                log.info("watching %s", self.kind.resource, extra={"objects": len(self.known), "before": before})
            else:
                level = logging.INFO if phase == "absent" else logging.WARNING
                log.log(level, "%s: %s: %s", self.kind.resource, phase, problem)
            self._tell()
            self._follower.moved()

    def _tell(self) -> None:
        synced = None if self.phase == "absent" else self.phase == "synced"
        self._hears.watch_stands(self.kind.resource, synced=synced, objects=len(self.known), broken=len(self.broken))


def _cause(error: ApiError) -> str:
    if error.status:
        return {401: "unauthorized", 403: "forbidden", 404: "absent"}.get(error.status, "refused")
    return {"Timeout": "silent", "Garbled": "garbled"}.get(error.reason, "unreachable")
