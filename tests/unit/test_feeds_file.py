"""Following an endpoints file, step by step: a look at the file, a look at the names."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds import FeedError
from epp.feeds.file import FileDiscovery, FileFeed, difference
from epp.types import Change, Endpoint

A = Endpoint("a", "10.0.0.1", 8000)
B = Endpoint("b", "10.0.0.2", 8000)
C = Endpoint("c", "10.0.0.3", 8000)


class Listener:
    """A pool: who is there, and each change it was told."""

    def __init__(self) -> None:
        self.there: dict[str, Endpoint] = {}
        self.changes: list[Change] = []
        self.told = asyncio.Event()

    def apply(self, change: Change) -> None:
        self.changes.append(change)
        self.there |= {endpoint.key: endpoint for endpoint in change.present}
        for key in change.gone:
            del self.there[key]
        self.told.set()

    @property
    def endpoints(self) -> list[Endpoint]:
        return list(self.there.values())


class World:
    """A file, a resolver, a clock and a feed that follows them."""

    def __init__(self, folder: Path, *, watch: bool = True) -> None:
        self.path = folder / "endpoints.yaml"
        self.pool = Listener()
        self.zone: dict[str, list[str]] = {}
        self.now = 0.0
        settings = FileDiscovery(path=str(self.path), watch_file=watch)
        self.feed = FileFeed(
            settings, [self.pool], clock=lambda: self.now, lookup=self.resolve, poll_s=0.001, settle_s=0.001
        )

    async def resolve(self, host: str) -> list[str]:
        if host not in self.zone:
            raise socket.gaierror(-2, "Name or service not known")
        return self.zone[host]

    def write(self, *endpoints: Endpoint | dict[str, Any]) -> None:
        """The file as it should be, put in place at once."""
        self.put(json.dumps({"endpoints": [entry(endpoint) for endpoint in endpoints]}))

    def put(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    async def settle(self) -> None:
        """Look until the file is at rest."""
        while not await self.feed.look():
            pass

    async def started(self, *endpoints: Endpoint | dict[str, Any]) -> None:
        self.write(*endpoints)
        await self.feed.load()

    async def at(self, now: float) -> None:
        self.now = now
        await self.feed.resolve()


def entry(endpoint: Endpoint | dict[str, Any]) -> dict[str, Any]:
    if isinstance(endpoint, dict):
        return {"name": "a", "address": "10.0.0.1", "port": 8000} | endpoint
    return {"name": endpoint.name, "address": endpoint.address, "port": endpoint.port, "labels": endpoint.labels}


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_the_first_load_publishes_every_endpoint(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A, B)
        assert world.pool.changes == [Change((A, B))]

    run(test)


def test_a_first_load_without_endpoints_is_published_too(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started()
        assert world.pool.changes == [Change()]

    run(test)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        pytest.param(None, "can't be read: No such file", id="no file"),
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("endpoints: [", "not YAML", id="no YAML"),
        pytest.param(
            "endpoints: [{name: a, address: 10.0.0.1, port: 1}, {name: b, address: x y, port: 0}, {name: c}]",
            r"endpoints\[1\] \(b\): port 0 is none; .*; endpoints\[2\] \(c\): Object missing",
            id="bad entries",
        ),
        pytest.param(
            "endpoints: [{name: a, address: nowhere, port: 1}]",
            "host name nowhere does not resolve: .*Name or service not known",
            id="unknown host",
        ),
    ],
)
def test_any_error_at_the_first_load_is_fatal_and_named(tmp_path: Path, text: str | None, rule: str) -> None:
    async def test() -> None:
        world = World(tmp_path)
        if text is not None:
            world.put(text)
        with pytest.raises(FeedError, match=rule) as refused:
            await world.feed.load()
        assert str(refused.value).startswith(f"endpoints file {world.path}: ")
        assert world.pool.changes == []

    run(test)


def test_a_reload_publishes_the_difference_alone(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A, B)
        moved = Endpoint("b", "10.0.0.9", 8000)
        world.write(moved, C)
        await world.settle()
        assert world.pool.changes[1:] == [Change((moved, C), ("default/a",))]

    run(test)


def test_an_unchanged_file_publishes_nothing(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A)
        await world.settle()
        world.write(A)
        await world.settle()
        assert len(world.pool.changes) == 1

    run(test)


def test_a_change_counts_once_it_was_seen_twice(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A, B)
        world.write(A)
        assert await world.feed.look() is False
        world.write(A, B, C)
        assert await world.feed.look() is False
        assert world.pool.endpoints == [A, B]
        assert await world.feed.look() is True
        assert world.pool.endpoints == [A, B, C]

    run(test)


def test_a_swapped_symlink_is_followed(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        for name, endpoint in (("1", A), ("2", B)):
            (tmp_path / name).mkdir()
            (tmp_path / name / "endpoints.yaml").write_text(json.dumps({"endpoints": [entry(endpoint)]}))
        (tmp_path / "data").symlink_to("1")
        world.path.symlink_to("data/endpoints.yaml")
        await world.feed.load()
        (tmp_path / "fresh").symlink_to("2")
        (tmp_path / "fresh").rename(tmp_path / "data")
        await world.settle()
        assert world.pool.endpoints == [B]

    run(test)


@pytest.mark.parametrize(
    "text", [None, "", "# empty\n", "endpoints:\n", '{"endpoints": [{"na', "endpoints: [{name: a}]"],
    ids=["gone", "empty", "comment", "no list", "cut off", "no valid entry"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_keeps_what_was_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A)
        world.path.unlink() if text is None else world.put(text)
        for _ in range(3):
            await world.settle()
        assert world.pool.changes == [Change((A,))]
        world.write(A, B)
        await world.settle()
        assert world.pool.endpoints == [A, B]

    run(test)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    assert "keeping" in caplog.text


def test_at_a_reload_valid_entries_are_used_and_a_spoilt_one_stays_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A, B)
        world.write({"name": "a", "port": 0}, {"name": "new", "port": 0}, C)
        await world.settle()
        assert sorted(world.pool.there) == ["default/a", "default/c"]
        assert world.pool.there["default/a"] == A

    run(test)
    assert "endpoints[0] (a): port 0 is none" in caplog.text
    assert "keeping what it said before" in caplog.text
    assert "left out" in caplog.text


def test_a_host_name_becomes_its_first_address(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.zone["gpu"] = ["10.0.0.7", "10.0.0.8"]
        await world.started({"address": "gpu"}, B)
        assert [endpoint.address for endpoint in world.pool.endpoints] == ["10.0.0.7", "10.0.0.2"]

    run(test)


def test_an_endpoint_moves_with_its_host_name(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path, watch=False)
        world.zone["gpu"] = ["10.0.0.7"]
        await world.started({"address": "gpu"}, B)
        world.zone["gpu"] = ["10.0.0.9"]
        await world.at(30)
        assert world.pool.changes[1:] == [Change((Endpoint("a", "10.0.0.9", 8000),))]
        world.zone.clear()
        await world.at(60)
        assert world.pool.there["default/a"].address == "10.0.0.9"

    run(test)


def test_a_new_host_name_is_waited_for_and_an_old_endpoint_kept_meanwhile(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        await world.started(A)
        world.write({"name": "a", "address": "later"}, {"name": "b", "address": "later"})
        await world.settle()
        await world.at(1)
        assert world.pool.endpoints == [A]
        world.zone["later"] = ["10.0.0.5"]
        await world.at(2)
        assert [endpoint.address for endpoint in world.pool.endpoints] == ["10.0.0.5", "10.0.0.5"]

    run(test)


def test_every_sink_is_told_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.write(A)
        order: list[str] = []

        class Named(Listener):
            def __init__(self, name: str) -> None:
                super().__init__()
                self.name = name

            def apply(self, change: Change) -> None:
                order.append(self.name)

        settings = FileDiscovery(path=str(world.path))
        await FileFeed(settings, [Named("pool"), Named("scraper")], clock=lambda: 0.0).load()
        assert order == ["pool", "scraper"]

    run(test)


def test_running_follows_the_file_until_cancelled(tmp_path: Path) -> None:
    async def test() -> None:
        world = World(tmp_path)
        world.zone["gpu"] = ["10.0.0.7"]
        await world.started(A)
        running = asyncio.create_task(world.feed.run())
        world.write(A, {"name": "b", "address": "gpu"})
        async with asyncio.timeout(20):
            while len(world.pool.there) < 2:
                world.pool.told.clear()
                await world.pool.told.wait()
        assert world.pool.there["default/b"].address == "10.0.0.7"
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run(test)


@pytest.mark.parametrize("parameters", [{}, {"path": 5}, {"path": "a", "watch": True}, {"path": "a", "watchFile": "x"}])
def test_parameters_that_cannot_be_used_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(parameters, FileDiscovery)


TABLES = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3)).map(
    lambda ports: {f"default/{name}": Endpoint(name, "::1", port) for name, port in ports.items()}
)


@given(TABLES, TABLES)
def test_a_difference_applied_gives_the_new_table(before: dict[str, Endpoint], after: dict[str, Endpoint]) -> None:
    change = difference(before, after)
    table = before | {endpoint.key: endpoint for endpoint in change.present}
    assert {key: table[key] for key in table if key not in change.gone} == after
    assert not any(before.get(endpoint.key) == endpoint for endpoint in change.present)
