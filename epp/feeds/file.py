"""The plug-in type `file-discovery`: endpoints from a file, followed while it changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import msgspec

from epp.feeds import FeedError, Sink
from epp.feeds.dns import Lookup, Names, lookup
from epp.feeds.entries import Loaded, Problem, read_endpoints
from epp.feeds.file_watch import POLL_S, SETTLE_S, WatchedFile
from epp.types import Change, Endpoint

log = logging.getLogger(__name__)


class FileDiscovery(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Settings of the plug-in type `file-discovery`: the file that lists the endpoints."""

    path: str
    """The file: YAML or JSON, 1 MiB at most."""
    watch_file: bool = False
    """Follow changes of the file. False as upstream: then it is read once, at the start."""
    manifests_path: str = ""
    """Ours: a file with InferenceObjectives and InferenceModelRewrites, as one would `kubectl apply` them. It is
    followed if watchFile is set. Default: none."""


def difference(before: Mapping[str, Endpoint], after: Mapping[str, Endpoint]) -> Change:
    """The change that turns `before` into `after`, both by key."""
    present = tuple(endpoint for key, endpoint in after.items() if before.get(key) != endpoint)
    return Change(present, tuple(key for key in before if key not in after))


class FileFeed:
    """Tells the sinks, in their order, which endpoints the file lists. `load` once, then `run` until cancelled."""

    def __init__(
        self,
        settings: FileDiscovery,
        sinks: Sequence[Sink],
        *,
        clock: Callable[[], float],
        lookup: Lookup = lookup,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = settings.path
        self._watching = settings.watch_file
        self._sinks = sinks
        self._clock = clock
        self._poll_s, self._settle_s = poll_s, settle_s
        self._names = Names(lookup)
        self._names_changed = asyncio.Event()
        self._wanted: dict[str, Endpoint] = {}
        """What the file lists, host names not yet resolved."""
        self._published: dict[str, Endpoint] = {}
        self._file = WatchedFile(settings.path, self._reload, self._complain)

    async def load(self) -> None:
        """Read the file for the first time and publish its endpoints. FeedError names everything that is wrong."""
        try:
            loaded = await asyncio.to_thread(read_endpoints, await self._file.first())
        except FeedError as error:
            raise FeedError(f"endpoints file {self._path}: {error}") from None
        self._warn(loaded.warnings)
        self._want({endpoint.key: endpoint for endpoint in loaded.endpoints})
        await self._names.refresh(self._clock())
        problems = [*map(str, loaded.errors), *self._unresolved()]
        if problems:
            raise FeedError(f"endpoints file {self._path}: {'; '.join(problems)}")
        self._publish(first=True)

    async def run(self) -> None:
        """Follow the file, if it is to be watched, and the host names in it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_names(), name="host names")
            if self._watching:
                tasks.create_task(self._file.follow(self._poll_s, self._settle_s), name="endpoints file")

    async def look(self) -> bool:
        """One look at the file; its endpoints are published once it was found the same twice. False until then."""
        return await self._file.look()

    async def resolve(self) -> None:
        """Look up the host names that are due and publish what came of it."""
        await self._names.refresh(self._clock())
        self._publish()

    async def _follow_names(self) -> None:
        while True:
            due = self._names.next_due()
            self._names_changed.clear()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._names_changed.wait()
            except TimeoutError:
                await self.resolve()

    async def _reload(self, content: bytes) -> None:
        loaded = await asyncio.to_thread(read_endpoints, content)
        self._warn(loaded.warnings)
        for problem in loaded.errors:
            log.error("endpoints file %s: %s; %s", self._path, problem, self._instead(problem))
        self._want(self._kept(loaded) | {endpoint.key: endpoint for endpoint in loaded.endpoints})
        self._publish()
        log.info("endpoints file %s: %d endpoints", self._path, len(self._wanted))

    def _kept(self, loaded: Loaded) -> dict[str, Endpoint]:
        """Endpoints whose entry is still there but can't be read any more stay as they were."""
        keys = [problem.key for problem in loaded.errors if problem.key in self._wanted]
        return {key: self._wanted[key] for key in keys}

    def _instead(self, problem: Problem) -> str:
        return "keeping what it said before" if problem.key in self._wanted else "left out"

    def _want(self, wanted: dict[str, Endpoint]) -> None:
        self._wanted = wanted
        self._names.use(Loaded(tuple(wanted.values())).host_names)
        self._names_changed.set()

    def _unresolved(self) -> list[str]:
        hosts = Loaded(tuple(self._wanted.values())).host_names
        problems = {host: self._names.problem(host) for host in sorted(hosts)}
        return [f"host name {host} does not resolve: {problem}" for host, problem in problems.items() if problem]

    def _publish(self, *, first: bool = False) -> None:
        """Tell the sinks what changed; `first`: also if nothing did, for it is then known that there are none."""
        found = {endpoint.key: endpoint for endpoint in map(self._resolved, self._wanted.values()) if endpoint}
        change = difference(self._published, found)
        self._published = found
        if first or change.present or change.gone:
            for sink in self._sinks:
                sink.apply(change)

    def _resolved(self, endpoint: Endpoint) -> Endpoint | None:
        """With its address in place of a host name; as published before, if ever, while the name does not resolve."""
        if endpoint.address not in self._names:
            return endpoint
        address = self._names.address(endpoint.address)
        return replace(endpoint, address=address) if address else self._published.get(endpoint.key)

    def _complain(self, text: str) -> None:
        log.error("endpoints file %s: %s; keeping the %d endpoints known", self._path, text, len(self._wanted))

    def _warn(self, warnings: Sequence[Problem]) -> None:
        for warning in warnings:
            log.warning("endpoints file %s: %s", self._path, warning)
