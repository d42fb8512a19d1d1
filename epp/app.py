"""The composition root: builds every part, runs them in one TaskGroup, drains."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import time
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import uvloop

from epp import __version__
from epp.config import Built
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes
from epp.extproc.server import GrpcServer
from epp.extproc.streams import OpenStreams
from epp.extproc.tls import CertificateError, Certificates, server_context
from epp.feeds import FeedError
from epp.feeds.file import FileFeed
from epp.feeds.pace import Pace
from epp.feeds.scrape import Scraper
from epp.hooks import Hooks
from epp.obs import logs
from epp.obs.admin import Admin
from epp.obs.decisions import Decisions
from epp.obs.metrics import Metrics, new_registry
from epp.obs.observer import PREFIX_PRODUCER, Observers
from epp.obs.otlp import OtlpError
from epp.obs.traces import Tracer
from epp.options import Options
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.readings import Membership, PoolReadings
from epp.route import Router
from epp.rules import Habits, Rules

log = logging.getLogger("epp")
LAG_EVERY_S = 1.0
QUIET_S = 2.0
"""The drain ends early when no stream was open for so long: gateways have noticed by then."""
GRACE_S = 5.0
"""Streams still open after the drain get this long to end."""


def serve(options: Options, built: Built) -> int:
    """Serve until a signal; returns the exit code: 0, or 1 if it could not start."""
    logs.setup(options.verbosity)
    told = (*options.warnings, *built.warnings, *options.unsupported_by(options.transport), *_without_effect(options))
    for warning in told:
        log.warning(warning)
    tracer = None
    try:
        tracer = Tracer.from_environment(options.tracing, os.environ, version=__version__)
        uvloop.run(App(options, built, tracer).serve())
    except (OSError, FeedError, CertificateError, OtlpError, NotOfferedError) as error:
        log.error("can't serve: %s", error)
        return 1
    except ExceptionGroup:
        log.exception("a part of the picker failed")
        return 1
    finally:
        if tracer is not None:
            tracer.close()
    return 0


def _without_effect(options: Options) -> list[str]:
    """Flags that were given and need what is not offered yet."""
    needs = {
        "ha-enable-leader-election": "this replica is ready without being elected",
        "metrics-endpoint-auth": "/metrics is open to all, /debug to this machine",
    }
    return [
        f"--{name} needs Kubernetes support, which is not offered yet: {instead}"
        for name, instead in needs.items()
        if name in options.given and getattr(options, name.replace("-", "_"))
    ]


class NotOfferedError(Exception):
    """What was asked for is not a part of this picker yet; the text says what to use instead."""


class App:
    """One picker: its parts, and how they live and end."""

    def __init__(self, options: Options, built: Built, tracer: Tracer | None) -> None:
        if built.discovery is None:
            raise NotOfferedError(
                "--pool-name and --endpoint-selector need Kubernetes support, which is not offered yet; list the "
                "endpoints in a file: dataLayer.discovery in the configuration, a plug-in of type file-discovery"
            )
        self._options = options
        self._built = built
        self._discovery = built.discovery
        self._draining = False
        self._in_a_hurry = False
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._pool = Pool(stale_after_s=options.metrics_staleness_threshold)
        self._health = Health(random.Random(), largest_share=options.max_cooling_share)
        self._metrics = Metrics(new_registry(), streams=options.enable_grpc_stream_metrics)
        self._decisions = Decisions(time.time)
        self._observers = Observers(
            self._metrics, self._decisions, tracer, now=time.monotonic, verbosity=options.verbosity
        )
        self._observers.configured({plugin.name: plugin.type.type for plugin in built.setup.plugins.values()})
        self._metrics.built(__version__, __version__)
        self._held = HeldBytes(body_limit=options.max_body_bytes, total_limit=options.max_held_bytes)
        self._streams = OpenStreams(self._metrics)
        self._router = self._made_router()

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT, then drain. Raises OSError, FeedError or CertificateError if it can't start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        readings = PoolReadings(self._pool, self._health, self._metrics, time.monotonic)
        scraper = self._made_scraper(readings)
        members = Membership(self._pool, [self._health.forget, readings.forget])
        feed = FileFeed(self._discovery, [members, scraper] if scraper else [members], clock=time.monotonic)
        await feed.load()
        server = self._made_server()
        admin = Admin(
            self._metrics.registry, self._decisions, self._built.resolved.yaml, pprof=self._options.enable_pprof
        )
        try:
            await self._start(server, admin)
        except BaseException:
            await server.stop(0)
            raise
        work = {"endpoints file": feed.run(), "gauges": self._refresh_gauges(), "loop lag": self._measure_lag()}
        if scraper:
            work["scraping"] = scraper.run()
        parts = asyncio.create_task(_together(work), name="parts")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({parts, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if parts.done():
            stopped.cancel()
            await server.stop(0)
            await parts
        # Scraping and the endpoints file go on while streams are drained.
        await self._drain(server)
        parts.cancel()
        await asyncio.wait({parts})
        await admin.stop()

    def ready(self) -> bool:
        """Whether requests should be sent here: the endpoints are known and the end is not near."""
        return self._pool.synced and not self._draining

    def _made_router(self) -> Router:
        options, built = self._options, self._built
        return Router(
            Rules(built.setup, built.parsers, Hooks(built.hooks), built.setup.columns),
            self._pool,
            self._health,
            observer=self._observers,
            rng=np.random.default_rng(),
            now=time.monotonic,
            clock=time.perf_counter,
            habits=Habits(
                decision_timeout_s=options.decision_timeout,
                load_report=options.load_report,
                emit_decision_id=options.emit_decision_id,
                emit_scores=options.emit_endpoint_scores,
                subset_filter=not options.disable_endpoint_subset_filter,
            ),
        )

    def _made_scraper(self, readings: PoolReadings) -> Scraper | None:
        if self._built.metrics is None:
            return None
        options = self._options
        pace = Pace()
        if "refresh-metrics-interval" in options.given:
            pace = Pace.of(options.refresh_metrics_interval)
        return Scraper(
            readings,
            self._built.metrics.engines,
            self._built.metrics.source,
            clock=time.monotonic,
            chance=random.random,
            pace=replace(pace, budget_cores=options.scrape_budget),
        )

    def _made_server(self) -> GrpcServer:
        return GrpcServer(
            lambda: Dialogue(self._router, self._held),
            self._streams,
            self.ready,
            max_recv_bytes=self._options.max_recv_bytes,
            max_send_bytes=self._options.max_send_bytes,
        )

    async def _start(self, server: GrpcServer, admin: Admin) -> None:
        options = self._options
        # The files are followed even without --enable-cert-reload: a rotated certificate must not end the service.
        shown = None
        if options.secure_serving:
            shown = Certificates(options.cert_path, reload=True, rsa_key=options.needs_rsa)
        ports = await server.start(options.grpc_port, options.grpc_health_port, shown)
        tls = None
        if options.metrics_cert_dir:
            pair = Certificates(options.metrics_cert_dir, reload=True)
            tls = server_context(pair, client_ca_file=options.metrics_client_ca_file)
        try:
            metrics_port = await admin.start(options.metrics_port, tls=tls)
        except OSError as error:
            raise OSError(f"can't listen on port {options.metrics_port} (--metrics-port): {error.strerror}") from None
        where = {"grpc_port": ports[0], "grpc_health_port": ports[1], "metrics_port": metrics_port}
        log.info("serving", extra={**where, "endpoints": len(self._pool), "tls": options.secure_serving})

    def _told_to_stop(self, number: signal.Signals) -> None:
        """SIGTERM drains; SIGINT, from somebody at a terminal, does not wait for quiet; a second one ends the drain."""
        if self._draining:
            self._stop_now.set()
        self._in_a_hurry = number == signal.SIGINT
        self._draining = True
        self._stop.set()

    async def _drain(self, server: GrpcServer) -> None:
        """Readiness is gone already: serve on until streams have ended or the drain time is over."""
        limit_s = self._options.drain_timeout
        log.info("draining", extra={"drain_timeout_s": limit_s, "streams": self._streams.count})
        quiet = asyncio.create_task(self._streams.quiet(0.0 if self._in_a_hurry else QUIET_S), name="quiet")
        told = asyncio.create_task(self._stop_now.wait(), name="second signal")
        done, waiting = await asyncio.wait({quiet, told}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if quiet not in done:
            why = "drain ended by a second signal" if told in done else "drain time is over"
            log.warning(why, extra={"streams": self._streams.count})
        await server.stop(0.0 if told in done else min(GRACE_S, limit_s))
        log.info("stopped", extra={"inflight": self._pool.ledger.requests})

    async def _refresh_gauges(self) -> None:
        while True:
            now = time.monotonic()
            endpoints = self._pool.snapshot(now)
            fresh = endpoints.fresh(self._options.metrics_staleness_threshold)
            name = self._options.pool_name or "epp"
            self._metrics.pool(name, endpoints, fresh, self._health.cooling(now))
            self._metrics.suspended(self._router.suspensions.names(now))
            self._metrics.held(self._held.held)
            for plugin in self._built.setup.plugins.values():
                if plugin.type.type == PREFIX_PRODUCER:
                    self._metrics.prefix_index(plugin.name, plugin.instance.statistics().entries)
            await asyncio.sleep(self._options.refresh_prometheus_metrics_interval)

    async def _measure_lag(self) -> None:
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self._metrics.lagged(max(0.0, time.monotonic() - asleep_at - LAG_EVERY_S))


async def _together(work: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All of it, each as a task by its name; the first failure ends the others."""
    async with asyncio.TaskGroup() as tasks:
        for name, one in work.items():
            tasks.create_task(one, name=name)
