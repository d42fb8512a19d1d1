"""What happened, as Prometheus metrics: one method an event, called by whoever saw it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np
from prometheus_client import CollectorRegistry, ProcessCollector

from epp.obs.flows import Flow
from epp.obs.metrics_table import STREAMS, TABLE
from epp.obs.series import Cap, Families, Histogram, Labels
from epp.types import Column, Decision, Endpoint, Endpoints, Mask, Outcome, Refused, Request

MOST_VALUES = 1000
"""Model names (incoming and target together), and fairness ids: so many of each are told apart, the rest is `other`."""
MOST_FLOWS = 2000
"""And so many combinations of both: each costs about 3 KB and 200 lines of a scrape, and clients choose the names."""
EXTENSION_POINTS = {
    "filter": "Filter",
    "scorer": "Scorer",
    "picker": "Picker",
    "profile_handler": "ProfilePicker",
    "signal": "DataProducer",
    "screener": "Screener",
    "admitter": "Admission",
}
NOBODY = ("", "", "")


class Metrics:
    """All metrics of the picker, added to `registry`; not thread-safe, except that another thread may scrape.

    `streams` adds the metrics of ext_proc streams.
    """

    def __init__(self, registry: CollectorRegistry, *, streams: bool = False) -> None:
        families = self.families = Families((*TABLE, *STREAMS) if streams else TABLE)
        registry.register(families)
        self.registry = registry
        self.streams_open = 0
        """ext_proc streams."""
        self._streams = streams
        self._plugin_types: Mapping[str, str] = {}
        self._places: dict[str, dict[str, Histogram]] = {}
        """By place and plug-in."""
        self._hits: dict[str, tuple[Histogram, Histogram]] = {}
        self._flows: dict[tuple[str, str, str, int], Flow] = {}
        self._flows_by_labels: dict[Labels, Flow] = {}
        self._latest = Request()
        self._latest_flow = Flow(families, NOBODY)
        self._models = Cap(MOST_VALUES)
        self._fairness_ids = Cap(MOST_VALUES)
        self._errors = families.cells("request_error_total")
        self._request_work = families.histograms("request_processing_duration_seconds").at(())
        self._response_work = families.histograms("response_processing_duration_seconds").at(())
        self._attempts = families.cells("scheduler_attempts_total")
        self._decision_s = families.histograms("scheduler_e2e_duration_seconds").at(())
        self._plugin_s = families.histograms("plugin_duration_seconds")
        self._flaws = families.cells("plugin_flaws_total")
        self._wrapped = families.cells("response_pieces_total").at(("wrapped",))
        self._read = families.cells("response_pieces_total").at(("read",))

    def configured(self, plugin_types: Mapping[str, str]) -> None:
        """Another configuration is in force: name of each plug-in → its type."""
        self._plugin_types = plugin_types
        self._places.clear()
        self._hits.clear()

    def keep_models(self, models: Iterable[str]) -> None:
        """These models are named by the operator and never become `other`."""
        self._models.keep(models)

    def built(self, commit: str, build_ref: str) -> None:
        """What is running."""
        self.families.cells("info").set((commit, build_ref), 1.0)

    def scheduled(self, decision: Decision, request: Request, *, since_headers_s: float) -> None:
        """A request has its endpoint. Exactly one `ended` must follow."""
        flow = self.flow(request)
        flow.add("request_total")
        flow.observe("request_size_bytes", request.body_bytes)
        if request.model:
            flow.add("request_running")
        self._request_work.observe(since_headers_s)
        self._decision_s.observe(decision.took_s)
        flow.attempt(decision.picked[0])
        self._plugins(decision)

    def refused(self, request: Request, refused: Refused, *, since_headers_s: float) -> None:
        """A request got an answer instead of an endpoint."""
        flow = self.flow(request).labels
        self._errors.add((*flow, refused.code))
        self._request_work.observe(since_headers_s)
        decision = refused.decision
        if decision is not None:
            if decision.runs:
                self._attempts.add(("failure", flow[1], *NOBODY))
            self._plugins(decision)

    def gaps(self, request: Request) -> Callable[[float], None]:
        """Takes the time between two pieces of a streamed response."""
        return self.flow(request).histogram("request_streaming_itl_seconds").observe

    def passed(self, wrapped: int, read: int) -> None:
        """Pieces of one response, by the way they went."""
        self._wrapped.value += wrapped
        self._read.value += read

    def ended(self, request: Request, outcome: Outcome) -> None:
        """A request that was `scheduled` has ended, however."""
        flow = self.flow(request)
        if request.model:
            flow.add("request_running", -1.0)
        if outcome.failure or outcome.status >= 400:
            self._errors.add((*flow.labels, "ModelServerError"))
        if outcome.cause == "natural":
            self._response_work.observe(outcome.work_s)
            _completed(flow, outcome)

    def rewritten(self, rule: str, model: str, target: str) -> None:
        """A rewrite rule changed a request's model."""
        labels = (rule, self._models(model), self._models(target))
        self.families.cells("model_rewrite_decisions_total").add(labels)

    def inflight(self, endpoint: Endpoint, request: Request, producer: str, requests: int, tokens: float) -> None:
        """`requests` and `tokens` more (or, below 0, less) are in flight to `endpoint`."""
        self.flow(request).inflight(endpoint, producer, requests, tokens)

    def pool(self, name: str, endpoints: Endpoints, fresh: Mask, cooling: Collection[str] = ()) -> None:
        """How the pool stands: means and deviations over `fresh` endpoints (they freeze when there are none).

        `cooling` are keys of endpoints. Series of endpoints that are gone go.
        """
        cells = self.families.cells
        cells("ready_endpoints").set((name,), len(endpoints))
        for metric, column in (
            ("kv_cache_utilization", endpoints.kv_usage),
            ("queue_size", endpoints.waiting),
            ("running_requests", endpoints.running),
        ):
            self._moments(name, metric, column[fresh])
        for metric in ("per_endpoint_queue_size", "endpoint_cooling"):
            cells(metric).drop(lambda labels, _: labels[0] == name)
        for record, waiting in zip(endpoints.records, endpoints.waiting.tolist(), strict=True):
            cells("per_endpoint_queue_size").set((name, record.name), waiting)
            cells("endpoint_cooling").set((name, record.name), float(record.key in cooling))
        there = {(record.name, record.namespace) for record in endpoints.records}
        metrics = ("inflight_requests", "inflight_tokens")
        dropped = [cells(name).drop(lambda labels, value: not value and labels[:2] not in there) for name in metrics]
        if any(dropped):
            for flow in self._flows_by_labels.values():
                flow.forget()

    def _moments(self, name: str, metric: str, values: Column) -> None:
        if len(values):
            self.families.cells(f"average_{metric}").set((name,), round(float(np.mean(values)), 2))
            self.families.cells(f"std_dev_{metric}").set((name,), round(float(np.std(values)), 2))

    def endpoint_failed(self, endpoint: str, kind: str) -> None:
        """`endpoint` (its name) failed a request or a scrape: 5xx, connect, missing, scrape."""
        self.families.cells("endpoint_failures_total").add((endpoint, kind))

    def flawed(self, plugin: str, rule: str) -> None:
        """A plug-in broke the contract outside of a decision."""
        self._flaws.add((plugin, rule))

    def suspended(self, plugins: Collection[str]) -> None:
        """The plug-ins that are left out for being slow."""
        cells = self.families.cells("plugin_suspended")
        for (plugin,) in list(cells.values):
            cells.set((plugin,), 0.0)
        for plugin in plugins:
            cells.set((plugin,), 1.0)

    def poll_failed(self, source_type: str) -> None:
        """An endpoint could not be read."""
        self.families.cells("datalayer_poll_errors_total").add((source_type,))

    def extract_failed(self, source_type: str, extractor_type: str) -> None:
        """What was read lacked a metric that was looked for."""
        self.families.cells("datalayer_extract_errors_total").add((source_type, extractor_type))

    def prefix_index(self, plugin: str, entries: int) -> None:
        """How much the prefix index of `plugin` holds."""
        self.families.cells("prefix_indexer_size").set(self._plugin(plugin), entries)

    def prefix_hit(self, plugin: str, ratio: float, hit_bytes: float) -> None:
        """What the picked endpoint held of a prompt."""
        found = self._hits.get(plugin)
        if found is None:
            histograms, labels = self.families.histograms, self._plugin(plugin)
            ratios, sizes = histograms("prefix_indexer_hit_ratio"), histograms("prefix_indexer_hit_bytes")
            found = self._hits[plugin] = ratios.at(labels), sizes.at(labels)
        found[0].observe(ratio)
        found[1].observe(hit_bytes)

    def held(self, held_bytes: int) -> None:
        """Bytes of request bodies in memory."""
        self.families.cells("held_bytes").set((), held_bytes)

    def body_refused(self, reason: str) -> None:
        """A body was refused for its size: too-large or too-much-held."""
        self.families.cells("body_refused_total").add((reason,))

    def lagged(self, seconds: float) -> None:
        """The event loop came round so late."""
        self._observe("loop_lag_seconds", (), seconds)

    def stream_opened(self) -> None:
        """An ext_proc stream is open. Exactly one `stream_closed` must follow."""
        self.streams_open += 1
        if self._streams:
            self.families.cells("extproc_streams_inflight").set((), self.streams_open)

    def stream_closed(self, seconds: float, code: str) -> None:
        """It ended after `seconds` with a gRPC status, spelled as in Go: OK, Canceled."""
        self.streams_open -= 1
        if self._streams:
            self.families.cells("extproc_streams_inflight").set((), self.streams_open)
            self._observe("extproc_stream_duration_seconds", (), seconds)
            self.families.cells("extproc_streams_total").add((code,))

    def _observe(self, name: str, labels: Labels, value: float) -> None:
        self.families.histograms(name).observe(labels, value)

    def flow(self, request: Request) -> Flow:
        """By model, target model, fairness id and priority, capped."""
        if request is self._latest:
            return self._latest_flow
        asked = (request.incoming_model, request.model, request.fairness_id, request.priority)
        flow = self._flows.get(asked) or self._capped(*asked)
        # One event often brings several calls, which follow each other.
        self._latest, self._latest_flow = request, flow
        return flow

    def _capped(self, incoming: str, model: str, fairness_id: str, priority: int) -> Flow:
        asked = (incoming, model, fairness_id, priority)
        if len(self._flows) >= MOST_FLOWS:
            return self._labelled(("other", "other", "other", str(priority)))
        labels = (self._models(incoming), self._models(model), self._fairness_ids(fairness_id), str(priority))
        flow = self._labelled(labels)
        if labels[:3] == asked[:3]:
            self._flows[asked] = flow
        return flow

    def _labelled(self, labels: Labels) -> Flow:
        found = self._flows_by_labels.get(labels)
        if found is None:
            found = self._flows_by_labels[labels] = Flow(self.families, labels)
        return found

    def _plugin(self, name: str) -> Labels:
        return (name, self._plugin_types.get(name, name))

    def _plugins(self, decision: Decision) -> None:
        places = self._places
        for spent in decision.spent:
            place = places.get(spent.place)
            series = None if place is None else place.get(spent.by)
            (series or self._placed(spent.place, spent.by)).observe(spent.seconds)
        for flaw in decision.flaws:
            self.flawed(flaw.by, flaw.rule)

    def _placed(self, place: str, by: str) -> Histogram:
        labels = (EXTENSION_POINTS.get(place, place), self._plugin_types.get(by, by), by)
        found = self._places.setdefault(place, {})[by] = self._plugin_s.at(labels)
        return found


def _completed(flow: Flow, outcome: Outcome) -> None:
    duration_s, ttft_s, streamed = outcome.duration_s, outcome.ttft_s, outcome.streamed
    flow.observe("request_duration_seconds", duration_s)
    flow.observe("response_size_bytes", outcome.response_bytes)
    if ttft_s is not None:
        flow.histogram("request_ttft_seconds", "true" if streamed else "false").observe(ttft_s)
    usage = outcome.usage
    if usage is None:
        return
    asked, cached, made = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens
    if asked > 0:
        flow.observe("request_input_tokens", asked)
    if cached is not None:
        flow.observe("request_cached_tokens", cached)
    if made > 0:
        flow.observe("request_output_tokens", made)
        flow.observe("request_ntpot_seconds", duration_s / made)
    if made > 1 and streamed and ttft_s is not None:
        flow.observe("request_streaming_tpot_seconds", (duration_s - ttft_s) / (made - 1))


def new_registry() -> CollectorRegistry:
    """A registry of our own, with the CPU, memory and file descriptors of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry
