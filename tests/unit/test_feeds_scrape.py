"""The scraper against real HTTP servers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from epp.feeds import FeedError
from epp.feeds.engines import engines
from epp.feeds.pace import Pace
from epp.feeds.scrape import MetricsDataSource, Scraper, page_url
from epp.types import Change, Endpoint, Reading

PAGES = Path(__file__).parent.parent / "fixtures" / "metrics"
BUSY = Reading(0, 24, 0.016114264786669108, 32, 16384)
FAST = Pace(busy_s=0.01, idle_s=0.02)


@dataclass
class Told:
    """A pool that writes down what it is told, in order."""

    events: list[tuple[str, str]] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)
    intervals_s: list[float] = field(default_factory=list)
    busy_keys: set[str] = field(default_factory=set)
    broken_keys: set[str] = field(default_factory=set)
    _told_more: asyncio.Event = field(default_factory=asyncio.Event)

    def sent(self, key: str) -> None:
        self._tell("sent", key)

    def update(self, key: str, reading: Reading, now: float, interval_s: float) -> None:
        if key in self.broken_keys:
            raise RuntimeError("a fault")
        self.readings[key] = reading
        self.intervals_s.append(interval_s)
        self._tell("update", key)

    def lacked(self, key: str, names: tuple[str, ...]) -> None:
        self._tell(f"lacks {' '.join(names)}", key)

    def scrape_failed(self, key: str, kind: str) -> None:
        self._tell(kind, key)

    def busy(self, key: str) -> bool:
        return key in self.busy_keys

    async def until(self, done: Callable[[], bool]) -> None:
        """Looked at after each thing told."""
        async with asyncio.timeout(20):
            while not done():
                self._told_more.clear()
                await self._told_more.wait()

    async def heard(self, what: str, key: str, times: int = 1) -> None:
        await self.until(lambda: self.events.count((what, key)) >= times)

    def _tell(self, what: str, key: str) -> None:
        self.events.append((what, key))
        self._told_more.set()


@dataclass
class Engine:
    """A server with a metrics page; `gate` holds its answers back while it is cleared."""

    page: str = "vllm-0.32.0-busy.txt"
    port: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    connections: set[object] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    on_request: Callable[[], None] = lambda: None

    async def answer(self, request: web.Request) -> web.Response:
        self.on_request()
        self.requests[request.path] += 1
        self.connections.add(request.transport)
        await self.gate.wait()
        return web.Response(text=(PAGES / self.page).read_text())

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Engine]:
        self.gate.set()
        runner = web.ServerRunner(web.Server(self.answer), shutdown_timeout=0.1)  # type: ignore[arg-type]
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()


def endpoint(name: str, engine: Engine, **more: Any) -> Endpoint:  # whatever fields a test sets
    return Endpoint(name, "127.0.0.1", more.pop("port", engine.port), **more)


@contextlib.asynccontextmanager
async def scraping(told: Told, *, pace: Pace = FAST, **source: Any) -> AsyncIterator[Scraper]:
    scraper = Scraper(
        told,
        engines(),
        MetricsDataSource(**source),
        clock=asyncio.get_running_loop().time,
        chance=lambda: 0.5,
        pace=pace,
        timeout_s=5.0,
    )
    running = asyncio.create_task(scraper.run())
    try:
        yield scraper
        assert not running.done()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def test_the_pages_of_all_endpoints_are_read_again_and_again() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine), endpoint("b", engine, namespace="other"))))
            await told.heard("update", "default/a", 3)
            await told.heard("update", "other/b", 3)
        assert told.readings == {"default/a": BUSY, "other/b": BUSY}

    run(test)


def test_the_pool_hears_of_a_scrape_before_the_engine_does() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine, scraping(told) as scraper:
            engine.on_request = lambda: told.events.append(("request", "default/a"))
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("update", "default/a")
        assert [what for what, _ in told.events[:3]] == ["sent", "request", "update"]

    run(test)


@pytest.mark.parametrize(("busy", "interval_s"), [(True, 0.01), (False, 0.02)])
def test_the_interval_in_force_depends_on_use(busy: bool, interval_s: float) -> None:
    async def test() -> None:
        told = Told(busy_keys={"default/a"} if busy else set())
        async with Engine().serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("update", "default/a", 2)
        assert told.intervals_s[-1] == pytest.approx(interval_s)

    run(test)


def test_a_connection_is_kept() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("update", "default/a", 5)
            assert len(engine.connections) == 1

    run(test)


def test_a_refused_endpoint_is_reported_and_the_others_are_read_on() -> None:
    async def test() -> None:
        told = Told()
        with socket.socket() as held:  # bound and not listening: nobody else takes the port meanwhile
            held.bind(("127.0.0.1", 0))
            async with Engine().serving() as engine, scraping(told) as scraper:
                dead = Endpoint("dead", "127.0.0.1", held.getsockname()[1])
                scraper.apply(Change((dead, endpoint("a", engine))))
                await told.heard("refused", "default/dead", 2)
                await told.heard("update", "default/a", 2)

    run(test)


def test_a_page_without_the_engines_metrics_is_a_failure_and_its_recovery_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        told = Told()
        async with Engine("sglang.txt").serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("parse", "default/a", 2)
            engine.page = "vllm-0.32.0-idle.txt"
            await told.heard("update", "default/a", 2)

    caplog.set_level("INFO", "epp.feeds.scrape")
    run(test)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "none of the metrics of engine 'vllm' is on the page" in caplog.records[0].message


def test_the_engine_is_chosen_by_the_endpoints_label() -> None:
    async def test() -> None:
        told = Told()
        async with Engine("sglang.txt").serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine, labels={"llm-d.ai/engine-type": "sglang"}),)))
            await told.heard("update", "default/a")
        assert told.readings["default/a"] == Reading(2, 6, 0.28, 64, 11147)

    run(test)


def test_the_pool_is_told_which_numbers_a_page_lacks() -> None:
    async def test() -> None:
        told = Told()
        async with Engine("vllm-before-2025-06.txt").serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("update", "default/a")
            assert told.events == [("sent", "default/a"), ("lacks num_blocks", "default/a"), ("update", "default/a")]

    run(test)


def test_a_removed_endpoint_is_read_no_more_and_its_last_answer_is_dropped() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine, Engine().serving() as other, scraping(told) as scraper:
            engine.gate.clear()
            scraper.apply(Change((endpoint("a", engine), endpoint("b", other))))
            await told.heard("sent", "default/a")
            scraper.apply(Change(gone=("default/a",)))
            engine.gate.set()
            await told.heard("update", "default/b", 5)
            assert told.events.count(("sent", "default/a")) == 1
            assert "default/a" not in told.readings

    run(test)


def test_an_endpoint_that_moved_is_read_at_its_new_address() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as old, Engine().serving() as new, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", old),)))
            await told.heard("update", "default/a")
            scraper.apply(Change((endpoint("a", new),)))
            await told.until(lambda: new.requests.total() > 0)
            before = old.requests.total()
            await told.heard("update", "default/a", len(told.events))
            assert old.requests.total() == before

    run(test)


def test_an_endpoint_told_again_unchanged_keeps_its_pace() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine, Engine().serving() as other:
            async with scraping(told, pace=Pace(3600, 3600)) as scraper:
                scraper.apply(Change((endpoint("a", engine),)))
                await told.heard("update", "default/a")
                scraper.apply(Change((endpoint("a", engine), endpoint("b", other))))
                await told.heard("update", "default/b")
            assert told.events.count(("sent", "default/a")) == 1

    run(test)


def test_a_fault_of_ours_met_on_one_endpoint_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        told = Told(broken_keys={"default/a"})
        async with Engine().serving() as engine, scraping(told) as scraper:
            scraper.apply(Change((endpoint("a", engine), endpoint("b", engine))))
            await told.heard("sent", "default/a", 2)
            await told.heard("update", "default/b", 2)

    run(test)
    assert "scraping default/a" in caplog.text
    assert "a fault" in caplog.text


def test_beyond_the_budget_intervals_grow_and_the_log_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        told = Told()
        pace = Pace(0.05, 0.1, budget_cores=1e-5)
        async with Engine().serving() as engine, scraping(told, pace=pace) as scraper:
            scraper.apply(Change((endpoint("a", engine), endpoint("b", engine))))
            await told.heard("update", "default/a")
            await told.heard("update", "default/b")
        assert min(told.intervals_s) > 1

    run(test)
    assert [message for message in caplog.messages if "would take more than 1e-05 cores" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_cancelling_leaves_nothing_behind() -> None:
    async def test() -> None:
        told = Told()
        async with Engine().serving() as engine:
            engine.gate.clear()
            async with scraping(told) as scraper:
                scraper.apply(Change((endpoint("a", engine),)))
                await told.heard("sent", "default/a")
            left = {task.get_name() for task in asyncio.all_tasks()}
            assert not [name for name in left if name.startswith("scrape")]

    run(test)


@pytest.mark.parametrize(
    ("where", "source", "url"),
    [
        pytest.param({}, {}, "http://10.0.0.1:8000/metrics", id="default"),
        pytest.param({"address": "fd00::1"}, {}, "http://[fd00::1]:8000/metrics", id="IPv6"),
        pytest.param({"metrics_address": "m:9000"}, {}, "http://m:9000/metrics", id="metrics address"),
        pytest.param({}, {"port": 9400}, "http://10.0.0.1:9400/metrics", id="port"),
        pytest.param({"address": "fd00::1"}, {"port": 9}, "http://[fd00::1]:9/metrics", id="port with IPv6"),
        pytest.param({"metrics_address": "m:9000"}, {"port": 9}, "http://m:9/metrics", id="port goes before"),
        pytest.param({}, {"scheme": "https"}, "https://10.0.0.1:8000/metrics", id="https"),
        pytest.param({}, {"path": "/a/b?c=d%20e"}, "http://10.0.0.1:8000/a/b?c=d%20e", id="path"),
        pytest.param({}, {"path": "metrics"}, "http://10.0.0.1:8000/metrics", id="path without a slash"),
    ],
)
def test_where_the_page_is(where: dict[str, Any], source: dict[str, Any], url: str) -> None:
    fields: dict[str, Any] = {"address": "10.0.0.1", "port": 8000} | where
    assert str(page_url(Endpoint("a", **fields), MetricsDataSource(**source))) == url


def test_the_source_takes_all_upstream_parameters() -> None:
    parameters = {
        "scheme": "https",
        "path": "/m",
        "port": 9000,
        "insecureSkipVerify": False,
        "caCertPath": "ca",
        "clientCertPath": "c",
        "clientKeyPath": "k",
        "interval": "500ms",
    }
    assert msgspec.to_builtins(msgspec.convert(parameters, MetricsDataSource)) == parameters


@pytest.mark.parametrize("wrong", [{"port": 0}, {"port": 65536}, {"scheme": "ftp"}, {"Path": "/m"}, {"interval": 5}])
def test_parameters_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, MetricsDataSource)


def test_the_sources_interval_goes_before_the_command_lines() -> None:
    async def test() -> None:
        told = Told(busy_keys={"default/a"})
        async with Engine().serving() as engine, scraping(told, interval="100ms") as scraper:
            scraper.apply(Change((endpoint("a", engine),)))
            await told.heard("update", "default/a")
        assert told.intervals_s == [pytest.approx(0.1)]

    run(test)


def test_an_interval_that_is_no_duration_is_refused_with_its_name() -> None:
    with pytest.raises(FeedError, match="interval: '5' is no duration"):
        Scraper(Told(), engines(), MetricsDataSource(interval="5"), clock=float, chance=float)
