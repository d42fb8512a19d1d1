"""Elections over HTTP, against the API server for tests; short leases, real time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from epp.kube.client import Api
from epp.kube.lease import Timings, lease_name
from epp.kube.lease_runner import Election
from tests.apiserver import ApiServer

NAMESPACE = "llm"
NAME = lease_name(NAMESPACE, "pool")
QUICK = Timings(duration_s=1, renew_deadline_s=0.6, retry_s=0.1)
NAMESPACE_OBJECT = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
VERBS = ["get", "list", "watch", "create", "update", "patch"]


def role(verbs: list[str]) -> list[dict[str, Any]]:
    return [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs, "namespaces": [NAMESPACE]}]


class Town:
    """The server, and candidates that each have a connection of their own."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server = server
        self._folder = folder
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def candidate(self, name: str, token: str = "") -> AsyncIterator[Election]:
        path = self.server.kubeconfig(self._folder / name, token)
        api = await Api.connect({"KUBECONFIG": str(path)})
        one = Election(api, (NAMESPACE, NAME), name, QUICK, changed=lambda leading: self._changed.set())
        work = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            work.cancel()
            await asyncio.wait({work})
            await api.close()

    async def until(self, true: Callable[[], bool]) -> None:
        """Looked at after each change of who leads, and every now and then."""
        async with asyncio.timeout(20):
            while not true():
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), 0.02)

    @property
    def lease(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.get("Lease", NAMESPACE, NAME)
        return found


def play(folder: Path, test: Callable[[Town], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        async with ApiServer(**settings) as server:
            server.create(NAMESPACE_OBJECT)
            await test(Town(server, folder))

    asyncio.run(run())


def test_a_lease_is_created_renewed_released_and_taken(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a") as one:
            await town.until(lambda: one.leading)
            assert town.lease["spec"]["holderIdentity"] == "a"
            async with town.candidate("b") as two:
                assert await one.release()
                await town.until(lambda: two.leading)
                assert (town.lease["spec"]["holderIdentity"], one.leading) == ("b", False)
                assert town.lease["spec"]["leaseTransitions"] == 1

    play(tmp_path, test)


def test_who_dies_is_followed(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a") as one, town.candidate("b") as two:
            await town.until(lambda: one.leading or two.leading)
            dead, other = (one, two) if one.leading else (two, one)
            dead._candidacy.cancel()  # type: ignore[union-attr]
            await town.until(lambda: other.leading)
            assert not dead.leading

    play(tmp_path, test)


def test_the_lease_is_held_again_after_the_server_was_away(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a") as one:
            await town.until(lambda: one.leading)
            port = town.server.port
            await town.server.stop()
            await town.until(lambda: not one.leading)
            await town.server.start(port)
            await town.until(lambda: one.leading)

    play(tmp_path, test)


def test_who_waits_for_the_server_leads_once_it_answers(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        town.server.faults.silent = True
        async with town.candidate("a") as one:
            town.server.faults.silent = False
            await town.until(lambda: one.leading)

    play(tmp_path, test)


def test_the_role_of_the_docs_is_enough(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a", "token") as one:
            await town.until(lambda: one.leading)
            assert await one.release()
            assert {user for _, _, user in town.server.requests} == {"epp"}

    play(tmp_path, test, rbac={"token": ("epp", role(VERBS))})


def test_watching_is_done_without(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a", "token") as one:
            await town.until(lambda: one.leading)
            async with town.candidate("b", "token") as two:
                await one.release()
                await town.until(lambda: two.leading)

    play(tmp_path, test, rbac={"token": ("epp", role(["get", "create", "update"]))})


def test_without_a_role_nobody_leads_and_the_log_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a", "token") as one:
            await town.until(lambda: any("can't read lease" in line for line in caplog.messages))
            assert not one.leading

    caplog.set_level(logging.WARNING)
    play(tmp_path, test, rbac={"token": ("epp", [])})
    assert any("a Role in that namespace must allow" in line for line in caplog.messages)


def test_what_somebody_wrote_there_is_overcome(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a") as one:
            await town.until(lambda: one.leading)
            town.server.patch("Lease", NAMESPACE, NAME, {"spec": {"holderIdentity": "x", "leaseDurationSeconds": None}})
            await town.until(lambda: not one.leading)
            await town.until(lambda: one.leading)

    play(tmp_path, test)


def test_a_deleted_lease_is_made_again(tmp_path: Path) -> None:
    async def test(town: Town) -> None:
        async with town.candidate("a") as one:
            await town.until(lambda: one.leading)
            town.server.delete("Lease", NAMESPACE, NAME)
            await town.until(lambda: bool(town.server.all("Lease", NAMESPACE)))
            assert one.leading

    play(tmp_path, test)
