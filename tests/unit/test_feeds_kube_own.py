"""A replica hears that its own pod is being deleted, and takes nothing else for it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from epp.feeds.kube_own import OwnPod
from epp.kube.watch import Around
from tests.apiserver import ApiServer

from .kube_kit import NAMESPACE, QUICK, Heard, connected, pod, until


class Watched:
    """Counts how often it was told to leave."""

    def __init__(self) -> None:
        self.told = 0

    def leave(self) -> None:
        self.told += 1


@asynccontextmanager
async def watching(server: ApiServer, folder: Path) -> AsyncIterator[tuple[Watched, OwnPod]]:
    """As pod `epp-0`, once the watch is open."""
    watched = Watched()
    async with connected(server, folder) as api:
        around = Around(Heard(), time.monotonic, random.Random(0).random, QUICK)
        own = OwnPod(api, (NAMESPACE, "epp-0"), around, watched.leave)
        running = asyncio.create_task(own.watch.run(), name="own pod")
        await until(lambda: own.watch.phase == "synced")
        yield watched, own
        running.cancel()
        await asyncio.wait({running})


def seen(own: OwnPod, name: str, address: str) -> bool:
    found = own.watch.known.get(name)
    return found is not None and found.status.pod_ip == address


def test_a_pod_that_is_being_deleted_is_left_once(tmp_path: Path) -> None:
    async def run() -> int:
        async with ApiServer() as server:
            server.faults.termination_s = 60.0
            server.create(pod("epp-0"))
            async with watching(server, tmp_path) as (watched, own):
                server.delete("Pod", NAMESPACE, "epp-0", grace_s=30)
                await until(lambda: watched.told)
                server.patch("Pod", NAMESPACE, "epp-0", {"status": {"podIP": "10.0.0.9"}})
                await until(lambda: seen(own, "epp-0", "10.0.0.9"))
                return watched.told

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize("grace_s", [30, 0], ids=["another is deleted", "own one is gone without a word"])
def test_nothing_else_makes_it_leave(grace_s: int, tmp_path: Path) -> None:
    async def run() -> int:
        async with ApiServer() as server:
            for name in ("epp-0", "epp-1"):
                server.create(pod(name))
            async with watching(server, tmp_path) as (watched, own):
                server.delete("Pod", NAMESPACE, "epp-1" if grace_s else "epp-0", grace_s=grace_s)
                if grace_s:
                    server.patch("Pod", NAMESPACE, "epp-0", {"status": {"podIP": "10.0.0.9"}})
                await until(lambda: seen(own, "epp-0", "10.0.0.9") if grace_s else not own.watch.known)
                return watched.told

    assert asyncio.run(run()) == 0
