"""Everything that picks, without listeners and feeds: the pool and its books, the router, observers, the scraper."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

import numpy as np

from epp import __version__
from epp.config import Built, Metrics
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes
from epp.extproc.streams import OpenStreams
from epp.feeds.pace import Pace
from epp.feeds.scrape import Scraper
from epp.hooks import Hooks
from epp.obs import metrics_programs
from epp.obs.decisions import Decisions
from epp.obs.endpoint_state import endpoint_states
from epp.obs.metrics import Metrics as Board
from epp.obs.metrics import new_registry
from epp.obs.metrics_flow import FlowMetrics
from epp.obs.observer import PREFIX_PRODUCER, PRODUCER, Observers
from epp.obs.plugin_state import inflight_state, plugins_state
from epp.obs.traces import Tracer
from epp.options import Options
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.readings import Membership, PoolReadings
from epp.rewrites import Steering
from epp.route import Router
from epp.rules import Habits, Rules
from epp.scraping import Scraping
from epp.turnstile import Turnstile

LAG_EVERY_S = 1.0


class Picker:
    """The parts and how they hang together. `use` puts another configuration in force."""

    def __init__(self, options: Options, built: Built, tracer: Tracer | None) -> None:
        self._options = options
        self.built = built
        """The configuration in force."""
        self.pool = Pool(stale_after_s=options.metrics_staleness_threshold)
        self.health = Health(random.Random(), largest_share=options.max_cooling_share)
        self.metrics = Board(new_registry(), streams=options.enable_grpc_stream_metrics)
        self.metrics.built(__version__, __version__)
        # A replica that is not elected does not lead in vain: the alert for pools without a leader would fire.
        self.metrics.families.cells("leader").drop(lambda labels, value: True)
        self.decisions = Decisions(time.time)
        self._observers = Observers(
            self.metrics, self.decisions, tracer, now=time.monotonic, verbosity=options.verbosity
        )
        self._observers.configured(_types(built))
        self.held = HeldBytes(body_limit=options.max_body_bytes, total_limit=options.max_held_bytes)
        self.streams = OpenStreams(self.metrics)
        flow_metrics = FlowMetrics(self.metrics, options.served_pool, self._observers.hook_failed)
        self.turnstile = Turnstile(self.pool, flow_metrics, options.metrics_staleness_threshold)
        self.router = self._made_router()
        self.router.saturation = self.turnstile.saturation
        self._readings = PoolReadings(self.pool, self.health, self.metrics, time.monotonic, self.turnstile.wake)
        self.scraping = Scraping(self._made_scraper)
        forget = [self.health.forget, self._readings.forget]
        self.sinks = (Membership(self.pool, forget, self.turnstile.wake), self.scraping)
        """Who hears which endpoints there are."""

    def start(self) -> None:
        """Begin with the configuration given. Raises FeedError if its metrics can't be read as it says."""
        self.scraping.use(self.built.metrics)
        self._turn(self.built)

    def use(self, built: Built) -> None:
        """Put another configuration in force, between two decisions. Raises FeedError, and then nothing changed."""
        self.scraping.use(built.metrics)
        self.built = built
        self.router.rules = _rules(built)
        self._observers.configured(_types(built))
        self._turn(built)

    def _turn(self, built: Built) -> None:
        self.turnstile.use(built)
        self.router.queueing = self.turnstile.queueing

    def steer(self, steering: Steering) -> None:
        """Other objectives or rewrites are in force."""
        self.router.steering = steering
        self.turnstile.steer(steering)
        self.metrics.keep_models(steering.rewrites.models)

    def dialogue(self) -> Dialogue:
        """The other half of one ext_proc stream."""
        return Dialogue(self.router, self.held)

    def plugins_state(self) -> dict[str, Any]:  # JSON
        """For /debug/plugins/state."""
        loads = {key: self.pool.ledger.load(key) for key in self.pool.snapshot(time.monotonic()).rows}
        elsewhere = {PRODUCER: lambda: inflight_state(loads)}
        return plugins_state(self.built.setup.plugins, time.time_ns(), elsewhere)

    def endpoint_states(self) -> object:
        """For /debug/endpoints."""
        now = time.monotonic()
        return endpoint_states(self.pool.snapshot(now), self.health.cooling(now))

    async def refresh_gauges(self) -> None:
        """Until cancelled."""
        while True:
            now = time.monotonic()
            endpoints = self.pool.snapshot(now)
            fresh = endpoints.fresh(self._options.metrics_staleness_threshold)
            self.metrics.pool(self._options.served_pool, endpoints, fresh, self.health.cooling(now))
            self.metrics.suspended(self.router.suspensions.names(now))
            self.metrics.held(self.held.everywhere)
            self.turnstile.tell()
            fair = [plugin for plugin in self.built.setup.plugins.values() if plugin.type.type == metrics_programs.TYPE]
            metrics_programs.tell(self.metrics.families, fair[0].instance.statistics() if fair else None)
            for plugin in self.built.setup.plugins.values():
                if plugin.type.type == PREFIX_PRODUCER:
                    self.metrics.prefix_index(plugin.name, plugin.instance.statistics().entries)
            await asyncio.sleep(self._options.refresh_prometheus_metrics_interval)

    async def measure_lag(self) -> None:
        """Until cancelled."""
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(LAG_EVERY_S)
            self.metrics.lagged(max(0.0, time.monotonic() - asleep_at - LAG_EVERY_S))

    def _made_router(self) -> Router:
        options = self._options
        return Router(
            _rules(self.built),
            self.pool,
            self.health,
            observer=self._observers,
            rng=np.random.default_rng(),
            now=time.monotonic,
            clock=time.perf_counter,
            habits=Habits(
                decision_timeout_s=options.decision_timeout,
                load_report=options.load_report and options.response_phase == "full",
                emit_decision_id=options.emit_decision_id,
                emit_scores=options.emit_endpoint_scores,
                subset_filter=not options.disable_endpoint_subset_filter,
                whole_response=options.response_phase == "full",
            ),
        )

    def _made_scraper(self, metrics: Metrics) -> Scraper:
        options = self._options
        pace = Pace()
        if "refresh-metrics-interval" in options.given:
            pace = Pace.of(options.refresh_metrics_interval)
        return Scraper(
            self._readings,
            metrics.engines,
            metrics.source,
            clock=time.monotonic,
            chance=random.random,
            pace=replace(pace, budget_cores=options.scrape_budget),
        )


def _rules(built: Built) -> Rules:
    return Rules(built.setup, built.parsers, Hooks(built.hooks), built.setup.columns)


def _types(built: Built) -> dict[str, str]:
    """Type of each plug-in by its name."""
    return {plugin.name: plugin.type.type for plugin in built.setup.plugins.values()}
