"""Objectives and rewrites from a file, followed while it changes → Steering."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from epp.feeds import FeedError
from epp.feeds.entries import Problem
from epp.feeds.file import FileDiscovery
from epp.feeds.file_watch import POLL_S, SETTLE_S, WatchedFile
from epp.feeds.kube_objects import Ours, model_rewrites, priorities
from epp.feeds.manifests import Kinds, Manifests, read_manifests
from epp.kube.records import InferenceModelRewrite, InferenceObjective
from epp.rewrites import Rewrites, Steering

log = logging.getLogger(__name__)


class FileSteering:
    """`steer` hears what is in force, each time that it changes. `load` once, then `run` until cancelled.

    Objects that name another pool than `pool` of `group` do not count; without a pool's name, all do.
    """

    def __init__(
        self,
        settings: FileDiscovery,
        pool: str,
        group: str,
        steer: Callable[[Steering], None],
        *,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._path = settings.manifests_path
        self._watching = settings.watch_file
        self._ours = Ours(pool, group) if pool else None
        self._steer = steer
        self._poll_s, self._settle_s = poll_s, settle_s
        self._known: dict[str, Kinds] = {}
        self._file = WatchedFile(self._path, self._reload, self._complain)

    async def load(self) -> None:
        """Read the file for the first time. FeedError names everything that is wrong."""
        if not self._path:
            return
        try:
            found = await asyncio.to_thread(read_manifests, await self._file.first())
        except FeedError as error:
            raise FeedError(f"manifests file {self._path}: {error}") from None
        if found.errors:
            raise FeedError(f"manifests file {self._path}: {'; '.join(map(str, found.errors))}")
        self._use(dict(found.objects), found)

    async def run(self) -> None:
        """Follow the file, if it is to be watched."""
        if self._path and self._watching:
            await self._file.follow(self._poll_s, self._settle_s)

    async def look(self) -> bool:
        """One look at the file; what it says is in force once it was found the same twice. False until then."""
        return await self._file.look()

    async def _reload(self, content: bytes) -> None:
        found = await asyncio.to_thread(read_manifests, content)
        kept = {problem.key: self._known[problem.key] for problem in found.errors if problem.key in self._known}
        for problem in found.errors:
            log.error("manifests file %s: %s; %s until it is mended", self._path, problem, self._instead(problem))
        self._use({**found.objects, **kept}, found)

    def _instead(self, problem: Problem) -> str:
        return "what it said before counts" if problem.key in self._known else "it is left out"

    def _use(self, objects: dict[str, Kinds], found: Manifests) -> None:
        for warning in found.warnings:
            log.warning("manifests file %s: %s", self._path, warning)
        self._known = objects
        ours = [one for key, one in objects.items() if self._counts(key, one)]
        objectives = [one for one in ours if isinstance(one, InferenceObjective)]
        rewrites = model_rewrites([one for one in ours if isinstance(one, InferenceModelRewrite)], None)
        placed = [replace(one, place=place) for place, one in enumerate(rewrites)]
        self._steer(Steering(priorities(objectives, None), Rewrites(placed)))
        log.info("manifests file %s: %d objectives, %d rewrites", self._path, len(objectives), len(rewrites))

    def _counts(self, key: str, one: Kinds) -> bool:
        ref = one.spec.pool_ref
        if self._ours is None or ref is None or self._ours.named_by(ref):
            return True
        text = (
            "manifests file %s: %s is left out, it is for the pool %s of %s; --pool-name and --pool-group say %s of %s"
        )
        log.warning(text, self._path, key, ref.name, ref.group, self._ours.name, self._ours.group)
        return False

    def _complain(self, text: str) -> None:
        log.error("manifests file %s: %s; keeping the %d objects known", self._path, text, len(self._known))
