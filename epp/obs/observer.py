"""Takes what the route tells and passes it to metrics, the ring of decisions, traces and the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from epp.obs.decisions import Decisions
from epp.obs.logs import OnceAMinute
from epp.obs.metrics import Metrics
from epp.obs.metrics_latency import PRODUCER as LATENCY_PRODUCER
from epp.obs.metrics_latency import LatencyMetrics
from epp.obs.traces import Tracer
from epp.observe import Trace
from epp.plugins import raised
from epp.types import Decision, Endpoint, Outcome, Refused, Request, Spent

log = logging.getLogger("epp.requests")
PRODUCER = "inflight-load-producer"
PREFIX_PRODUCER = "approx-prefix-cache-producer"
DEBUG = 4
MENDED = frozenset({"nan", "range", "rows", "timeout"})
"""Rules of which a flaw says itself what was done."""


class Observers:
    """The one Observer of a router. Never raises, never blocks."""

    def __init__(
        self, metrics: Metrics, decisions: Decisions, tracer: Tracer | None, *, now: Callable[[], float], verbosity: int
    ) -> None:
        self.metrics = metrics
        self.decisions = decisions
        self._tracer = tracer
        self._now = now
        self._verbose = verbosity >= DEBUG
        self._once = OnceAMinute(now)
        self._prefix_producer = ""
        self._latency: LatencyMetrics | None = None

    def configured(self, plugin_types: dict[str, str]) -> None:
        """Another configuration is in force: name of each plug-in → its type."""
        self.metrics.configured(plugin_types)
        if self._tracer is not None:
            self._tracer.configured(plugin_types)
        producers = [name for name, kind in plugin_types.items() if kind == PREFIX_PRODUCER]
        self._prefix_producer = producers[0] if producers else ""
        predictors = [name for name, kind in plugin_types.items() if kind == LATENCY_PRODUCER]
        self._latency = LatencyMetrics(self.metrics, predictors[0]) if predictors else None

    def started(self, request: Request) -> Trace | None:
        return (
            None if self._tracer is None else self._tracer.start(request.headers, request.id, priority=request.priority)
        )

    def decided(self, request: Request, decision: Decision) -> None:
        since_s = self._now() - request.received_at
        self.metrics.scheduled(decision, request, since_headers_s=since_s)
        self.decisions.record(request, decision)
        self._prefix_hit(decision)
        if self._latency is not None and decision.signals:
            self._latency.decided(request, decision)
        if decision.flaws:
            self._tell_flaws(decision)
        if self._verbose:
            log.debug("picked %s", decision.picked[0].key, extra={"x-request-id": request.id, "model": request.model})

    def refused(self, request: Request, refusal: Refused) -> None:
        self.metrics.refused(request, refusal, since_headers_s=self._now() - request.received_at)
        if refusal.decision is not None:
            self.decisions.record(request, refusal.decision, refusal)
            self._tell_flaws(refusal.decision)
        if refusal.by in {"body-limit", "held-limit"}:
            self.metrics.body_refused("too-large" if refusal.by == "body-limit" else "too-much-held")
        if self._once(f"refused {refusal.status} {refusal.reason or refusal.by}"):
            # Not the message: it may quote what the client sent.
            text = "refused with %d %s by %s (told once a minute)"
            log.warning(
                text, refusal.status, refusal.reason or refusal.code, refusal.by, extra={"x-request-id": request.id}
            )

    def rewritten(self, request: Request, by: str) -> None:
        self.metrics.rewritten(by, request.incoming_model, request.model)

    def inflight(self, request: Request, endpoint: Endpoint, requests: int, tokens: float) -> None:
        if requests or tokens:
            self.metrics.inflight(endpoint, request, PRODUCER, requests, tokens)

    def gaps(self, request: Request) -> Callable[[float], None]:
        return self.metrics.gaps(request)

    def passed(self, wrapped: int, read: int) -> None:
        self.metrics.passed(wrapped, read)

    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        self.metrics.ended(request, outcome)
        if self._latency is not None:
            self._latency.ended(request, outcome)

    def hook_failed(self, plugin: str, error: BaseException) -> None:
        self.metrics.flawed(plugin, "exception")
        if self._once(f"hook {plugin}"):
            log.error("plug-in %s failed (told once a minute): %s", plugin, raised(error))

    def suspended(self, spent: Spent) -> None:
        log.warning(
            "plug-in %s took %.1f ms as %s, over 5 ms for the third time in a row: suspended for 30 s",
            spent.by,
            spent.seconds * 1e3,
            spent.place,
        )

    def failed(self, key: str, kind: str) -> None:
        self.metrics.endpoint_failed(key.partition("/")[2], kind)
        if self._once(f"endpoint {key} {kind}"):
            log.warning("endpoint %s failed a request: %s (told once a minute)", key, kind)

    def decision_id(self, decision: Decision) -> str:
        return self.decisions.id_of(decision)

    def _prefix_hit(self, decision: Decision) -> None:
        blocks = decision.signals.get("prompt_blocks", 0)
        if not self._prefix_producer or not blocks:
            return
        cached: float = decision.signals["cached_blocks"].item(decision.run.picked_rows[0])
        size = decision.signals["prefix_block_tokens"]
        self.metrics.prefix_hit(self._prefix_producer, cached / blocks, cached * size * 4)

    def _tell_flaws(self, decision: Decision) -> None:
        for flaw in decision.flaws:
            if flaw.rule != "suspended" and self._once(f"flaw {flaw.by} {flaw.rule}"):
                done = "" if flaw.rule in MENDED else "; its vote was left out"
                log.error("plug-in %s: %s%s (told once a minute): %s", flaw.by, flaw.rule, done, flaw.detail)
