"""How long a watch waits between attempts, however many there were."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from epp.kube import ApiError
from epp.kube.records import Pod
from epp.kube.watch import Around, Kind, Pace, Watch
from tests.apiserver import ApiServer

from .kube_kit import ALL, Heard, following, pod, pool

LONG = 1_100
"""Attempts; a float holds two to the power of 1023."""
PACE = Pace(first_s=1.0, most_s=30.0, absent_s=15.0)


class Away:
    """An API server that answers every request with one status, 0 = not at all."""

    def __init__(self, status: int) -> None:
        self.asked = 0
        self._status = status

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> bytes:
        self.asked += 1
        raise ApiError(self._status, "no")

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], silent_s: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        raise ApiError(self._status, "no")
        yield


class Deaf:
    def changed(self, changes: object) -> None: ...

    def moved(self) -> None: ...


def waits(status: int, attempts: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that a watch sleeps after each of its attempts, with the longest chance."""
    slept: list[float] = []

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)
        if len(slept) == attempts:
            raise asyncio.CancelledError

    monkeypatch.setattr("epp.kube.watch.asyncio.sleep", sleep)
    around = Around(Heard(), lambda: 0.0, lambda: 1.0, PACE)
    watch = Watch(Away(status), Kind("pods", "/pods", Pod), Deaf(), around)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch.run())
    return slept


@pytest.mark.parametrize("status", [0, 403, 404, 500])
def test_a_watch_outlives_any_number_of_failures(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(status, LONG, monkeypatch)[-1] == (15.0 if status == 404 else 30.0)


def test_it_waits_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(0, 7, monkeypatch) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_kind_that_is_not_there_is_asked_for_soon_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(404, 6, monkeypatch) == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_a_server_that_lost_its_state_is_listed_anew(tmp_path: Path) -> None:
    async def run() -> None:
        server = ApiServer(crds=ALL)
        for one in (pool(), pod("a"), pod("b")):
            server.create(one)
        await server.start()
        port = server.port
        async with following(server, tmp_path) as found:
            await found.shows("a-rank-0", "b-rank-0")
            await server.stop()
            restored = ApiServer(crds=ALL)
            restored.create(pool())
            restored.create(pod("a"))
            await restored.start(port)
            await found.shows("a-rank-0")
            await restored.stop()

    asyncio.run(run())
