"""Following a file of objectives and rewrites, a look at a time, and what requests meet of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from math import comb, exp, log
from pathlib import Path
from typing import Any

import pytest

from epp.feeds import FeedError
from epp.feeds.file import FileDiscovery
from epp.feeds.file_steering import FileSteering
from epp.rewrites import Steering

from .kit import World, bodies, request_body, request_headers, response_body, response_headers, said
from .test_feeds_manifests import listed, objective, rewrite

EXACT = {"matches": [{"model": {"value": "m"}}]}


def target(model: str, weight: int | None = None) -> dict[str, Any]:
    return {"modelRewrite": model} | ({} if weight is None else {"weight": weight})


def named(name: str, *rules: dict[str, Any], created: str = "") -> dict[str, Any]:
    meta = {"name": name} | ({"creationTimestamp": created} if created else {})
    return {**rewrite(*rules), "metadata": meta}


class Site:
    """A file, and who follows it."""

    def __init__(self, folder: Path, *, pool: str = "", watch: bool = True) -> None:
        self.path = folder / "manifests.yaml"
        self.heard: list[Steering] = []
        settings = FileDiscovery(path="", watch_file=watch, manifests_path=str(self.path))
        group = "inference.networking.k8s.io"
        self.feed = FileSteering(settings, pool, group, self.heard.append, poll_s=0.001, settle_s=0.001)

    def put(self, text: str) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    def loaded(self, *objects: dict[str, Any]) -> Steering:
        self.put(listed(*objects))
        asyncio.run(self.feed.load())
        return self.heard[-1]

    def changed(self, text: str) -> Steering:
        """What is in force once the file is at rest."""
        self.put(text)
        asyncio.run(self.settled())
        return self.heard[-1]

    async def settled(self) -> None:
        while not await self.feed.look():
            pass


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_first_load_puts_everything_in_force(site: Site) -> None:
    steering = site.loaded(objective("chat", priority=5), objective("batch"), rewrite({"targets": [target("x")]}))
    assert steering.objectives == {"chat": 5, "batch": 0}
    assert steering.rewrites.models == {"x"}


def test_any_error_at_the_first_load_is_fatal_and_named(site: Site) -> None:
    with pytest.raises(
        FeedError, match=r"manifests file .*manifests.yaml: document 1, items\[0\] .*prio.*; document 1"
    ):
        site.loaded(objective(prio=1), objective("b", priority="x"))
    assert site.heard == []


def test_a_file_that_is_not_there_is_fatal_at_the_start(site: Site) -> None:
    with pytest.raises(FeedError, match="can't be read: No such file"):
        asyncio.run(site.feed.load())


def test_without_a_file_nothing_is_said(tmp_path: Path) -> None:
    heard: list[Steering] = []
    feed = FileSteering(FileDiscovery(path="", watch_file=True), "", "", heard.append)
    asyncio.run(feed.load())
    asyncio.run(feed.run())
    assert heard == []


def test_objects_come_change_and_go_with_the_file(site: Site) -> None:
    site.loaded(objective("a", priority=1), objective("b", priority=2))
    steering = site.changed(listed(objective("a", priority=3), objective("c", priority=4)))
    assert steering.objectives == {"a": 3, "c": 4}


def test_an_unchanged_file_says_nothing(site: Site) -> None:
    site.loaded(objective())
    site.changed(listed(objective()))
    assert len(site.heard) == 1


def test_a_broken_object_keeps_what_it_said_before(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.loaded(objective("a", priority=1), rewrite({"targets": [target("x")]}))
    spoilt = [objective("a", prio=2), objective("new", prio=2), objective("b", priority=3)]
    steering = site.changed(listed(*spoilt, rewrite({"targets": [{"modelRewrit": "y"}]})))
    assert steering.objectives == {"b": 3, "a": 1}
    assert steering.rewrites.models == {"x"}
    assert (
        "(InferenceObjective/a): spec has no field 'prio'; did you mean priority?; what it said before" in caplog.text
    )
    assert "(InferenceObjective/new): spec has no field 'prio'; did you mean priority?; it is left out" in caplog.text


@pytest.mark.parametrize("text", [None, "", "# empty\n", '{"kind": "List", "items": [{"na', "kind: List\nitems:\n"])
def test_a_file_that_can_not_be_used_leaves_what_is_known(
    site: Site, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    site.loaded(objective("a", priority=1))
    if text is None:
        site.path.unlink()
        asyncio.run(site.settled())
    else:
        site.changed(text)
    asyncio.run(site.settled())
    assert len(site.heard) == 1
    assert caplog.text.count("keeping the 1 objects known") == 1
    assert site.changed(listed(objective("a", priority=2))).objectives == {"a": 2}


def test_a_change_counts_once_it_was_seen_twice(site: Site) -> None:
    site.loaded(objective("a", priority=1))

    async def test() -> None:
        site.put(listed())
        assert await site.feed.look() is False
        site.put(listed(objective("a", priority=2)))
        assert await site.feed.look() is False
        assert await site.feed.look() is True

    asyncio.run(test())
    assert [one.objectives for one in site.heard] == [{"a": 1}, {"a": 2}]


def test_a_swapped_symlink_is_followed(site: Site, tmp_path: Path) -> None:
    for name, priority in (("1", 1), ("2", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifests.yaml").write_text(listed(objective("a", priority=priority)))
    (tmp_path / "..data").symlink_to("1")
    site.path.symlink_to("..data/manifests.yaml")
    asyncio.run(site.feed.load())
    (tmp_path / "fresh").symlink_to("2")
    (tmp_path / "fresh").rename(tmp_path / "..data")
    asyncio.run(site.settled())
    assert [one.objectives for one in site.heard] == [{"a": 1}, {"a": 2}]


def test_running_follows_the_file_until_cancelled(site: Site) -> None:
    told = asyncio.Event()

    async def test() -> None:
        site.put(listed(objective("a", priority=1)))
        await site.feed.load()
        site.feed._steer = lambda steering: told.set()
        running = asyncio.create_task(site.feed.run())
        site.put(listed())
        async with asyncio.timeout(20):
            await told.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(test())


@pytest.mark.parametrize(
    ("pool", "expected"),
    [("", {"none", "ours", "other", "group"}), ("p", {"none", "ours"})],
    ids=["no pool named: all", "with a pool its own"],
)
def test_objects_of_another_pool_do_not_count(
    tmp_path: Path, pool: str, expected: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    refs = {"ours": {"name": "p"}, "other": {"name": "q"}, "group": {"name": "p", "group": "x"}}
    objects = [objective(name, poolRef=ref) for name, ref in refs.items()]
    assert set(Site(tmp_path, pool=pool).loaded(objective("none"), *objects).objectives) == expected
    assert ("for the pool q of inference.networking.k8s.io; --pool-name" in caplog.text) is bool(pool)


ALL: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        (
            [named("a", {**ALL, "targets": [target("all")]}), named("b", {**EXACT, "targets": [target("exact")]})],
            "exact",
        ),
        ([named("z", {**EXACT, "targets": [target("1st")]}), named("a", {**EXACT, "targets": [target("2nd")]})], "1st"),
        (
            [
                named("a", {**EXACT, "targets": [target("new")]}, created="2026-02-01T00:00:00Z"),
                named("z", {**EXACT, "targets": [target("old")]}, created="2026-01-01T00:00:00Z"),
            ],
            "old",
        ),
        ([named("a", {**EXACT, "targets": [target("1")]}, {**EXACT, "targets": [target("2")]})], "1"),
    ],
    ids=["exact before all", "without ages the first in the file", "the older", "the first in the object"],
)
def test_precedence(site: Site, objects: list[dict[str, Any]], expected: str) -> None:
    found = site.loaded(*objects).rewrites.find("m")
    assert found is not None
    assert found.models == (expected,)


def asked(world: World, model: str) -> tuple[str, str]:
    """The model the engine got, and the one that the response speaks of."""
    dialogue = world.dialogue()
    body = json.dumps({"model": model, "prompt": "x"}).encode()
    said(dialogue, request_headers())
    answers = said(dialogue, request_body(body, end=True))
    sent = json.loads(bodies(answers, "request_body"))["model"]
    said(dialogue, response_headers())
    answers = said(dialogue, response_body(b'{"model":"%b"}' % sent.encode(), end=True))
    return sent, json.loads(bodies(answers, "response_body"))["model"]


REQUESTS = 2000
ONE_IN = 1_000_000


def likely(chosen: int, share: float) -> bool:
    """Whether so few or so many of REQUESTS are no less likely than one in ONE_IN, exactly by the binomial law."""

    def chance(k: int) -> float:
        return exp(log(comb(REQUESTS, k)) + k * log(share) + (REQUESTS - k) * log(1 - share))

    fewer = sum(map(chance, range(chosen + 1)))
    more = sum(map(chance, range(chosen, REQUESTS + 1)))
    return min(fewer, more) > 1 / ONE_IN


@pytest.mark.parametrize(
    "weights", [{"a": 90, "b": 10}, {"a": 1, "b": 1, "c": 2}, {"a": 7, "b": 0}, {"a": 999, "b": 1}], ids=str
)
def test_a_split_from_the_file_is_met_and_the_client_hears_its_own_name(site: Site, weights: Mapping[str, int]) -> None:
    world = World()
    split = {**EXACT, "targets": [target(model, weight) for model, weight in weights.items()]}
    world.router.steering = site.loaded(rewrite(split))
    seen = Counter(asked(world, "m") for _ in range(REQUESTS))
    assert {client for _, client in seen} == {"m"}
    total = sum(weights.values())
    for model, weight in weights.items():
        met = seen[model, "m"]
        assert likely(met, weight / total) if 0 < weight < total else met == weight / total * REQUESTS
