"""Traces of requests, exported over OTLP or printed, if the OTEL_* variables ask for it.

Nothing of OpenTelemetry is imported, and no request pays anything, unless an exporter is configured; a client's trace
context then reaches the engine as it came.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from epp.obs.spans import Past, orchestration
from epp.types import Decision

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

SERVICE = "llm-d-epp"
SCOPE = "epp"
SAMPLER = "parentbased_traceidratio"
RATIO = 0.1
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTERS = frozenset({"otlp", "console"})

log = logging.getLogger(__name__)


class OtlpError(Exception):
    """An OTEL_EXPORTER_OTLP_* variable that can't be used; the text names it and the rule."""


def exporters(environ: Mapping[str, str]) -> frozenset[str]:
    """Where spans go: otlp, console, both or nowhere. Without OTEL_TRACES_EXPORTER an OTLP endpoint means otlp."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return frozenset()
    asked = {name.strip().lower() for name in environ.get("OTEL_TRACES_EXPORTER", "").split(",")} - {""}
    if not asked:
        return frozenset({"otlp"} if any(environ.get(name) for name in ENDPOINTS) else ())
    if unknown := asked - EXPORTERS - {"none"}:
        log.warning("OTEL_TRACES_EXPORTER: no exporter named %s; have: otlp, console, none", ", ".join(sorted(unknown)))
    return frozenset(asked & EXPORTERS)


def sampled_share(environ: Mapping[str, str]) -> float:
    """Share of the traces that begin here which are recorded; those that began elsewhere follow their parent."""
    sampler, text = environ.get("OTEL_TRACES_SAMPLER") or SAMPLER, environ.get("OTEL_TRACES_SAMPLER_ARG") or str(RATIO)
    if sampler != SAMPLER:
        log.warning("OTEL_TRACES_SAMPLER=%s: only %s is offered; using it with %g", sampler, SAMPLER, RATIO)
        return RATIO
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        log.warning("OTEL_TRACES_SAMPLER_ARG=%s: it must be a number from 0 to 1; using %g", text, RATIO)
        return RATIO
    return share


class Tracer:
    """Makes traces; a thread of OpenTelemetry's own exports them."""

    def __init__(
        self, provider: TracerProvider, propagator: TextMapPropagator, *, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._provider = provider
        self._propagator = propagator
        self._clock_ns = clock_ns
        self._tracer = provider.get_tracer(SCOPE)
        self._plugin_types: Mapping[str, str] = {}

    @classmethod
    def from_environment(
        cls, enabled: bool, environ: Mapping[str, str] = os.environ, *, version: str = ""
    ) -> Tracer | None:
        """A tracer as the OTEL_* variables describe it; None if it is not `enabled` or would export nowhere.

        Raises OtlpError if a variable of the exporter can't be used.
        """
        found = exporters(environ) if enabled else frozenset()
        if not found:
            return None
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.propagators.composite import CompositePropagator
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        provider = TracerProvider(ParentBasedTraceIdRatio(sampled_share(environ)), _resource(environ, version))
        for name in sorted(found):
            provider.add_span_processor(BatchSpanProcessor(_exporter(name, environ)))
        return cls(provider, CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]))

    def configured(self, plugin_types: Mapping[str, str]) -> None:
        """Another configuration is in force: name of each plug-in → its type."""
        self._plugin_types = plugin_types

    def start(self, headers: Mapping[str, tuple[str, ...]], request_id: str, *, priority: int = 0) -> Trace:
        """A request's headers are read; its trace goes on from the one they name."""
        from opentelemetry.trace import SpanKind

        context = self._propagator.extract(headers)
        about = {"gen_ai.request.id": request_id}
        span = self._tracer.start_span("gateway.request", context, SpanKind.SERVER, about, start_time=self._clock_ns())
        return Trace(self, span, context, priority)

    def close(self) -> None:
        """Export what is left; blocks for some seconds if nobody takes it."""
        self._provider.shutdown()

    def inject(self, context: Context) -> dict[str, str]:
        """Headers that carry `context` on."""
        headers: dict[str, str] = {}
        self._propagator.inject(headers, context)
        return headers

    def record(self, decision: Decision, priority: int, context: Context) -> None:
        """The spans of a decision that was just made."""
        now_ns = self._clock_ns()
        made = orchestration(decision, priority=priority, end_ns=now_ns, plugin_types=self._plugin_types)
        self._record(made, context)

    def end(self, span: Span) -> None:
        span.end(self._clock_ns())

    def _record(self, past: Past, context: Context) -> None:
        from opentelemetry.trace import SpanKind, set_span_in_context

        kind = SpanKind.SERVER if past.server else SpanKind.INTERNAL
        span = self._tracer.start_span(past.name, context, kind, past.attributes, start_time=past.start_ns)
        within = set_span_in_context(span, context)
        for inner in past.inner:
            self._record(inner, within)
        span.end(past.end_ns)


class Trace:
    """The trace of one request; `end` must follow, whatever becomes of it."""

    __slots__ = ("_context", "_parent", "_priority", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: Span, parent: Context, priority: int) -> None:
        from opentelemetry.trace import set_span_in_context

        self._tracer = tracer
        self._span = span
        self._priority = priority
        self._parent = parent
        self._context = set_span_in_context(span, parent)

    def headers(self) -> dict[str, str]:
        """traceparent, and tracestate and baggage if there are any, for the forwarded request.

        Empty for a trace that began elsewhere and is not recorded: its context passes as it came.
        """
        from opentelemetry.trace import get_current_span

        if not self._span.is_recording() and get_current_span(self._parent).get_span_context().is_valid:
            return {}
        return self._tracer.inject(self._context)

    def decided(self, decision: Decision) -> None:
        """Record the spans of the decision, which was just made."""
        if self._span.is_recording():
            self._span.set_attribute("gen_ai.request.model", decision.model)
            self._tracer.record(decision, self._priority, self._context)

    def end(self, *, status: int, error: str) -> None:
        """The request is over: the HTTP status (0 = none was seen) and what went wrong ("" = nothing)."""
        from opentelemetry.trace import Status, StatusCode

        if status:
            self._span.set_attribute("http.response.status_code", status)
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._tracer.end(self._span)


def _resource(environ: Mapping[str, str], version: str) -> Resource:
    """What the spans are of; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word."""
    from urllib.parse import unquote

    from opentelemetry.sdk.resources import Resource

    pairs = [pair.partition("=") for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in pair]
    given = {key.strip(): unquote(value.strip()) for key, _, value in pairs}
    if environ.get("OTEL_SERVICE_NAME"):
        given["service.name"] = environ["OTEL_SERVICE_NAME"]
    return Resource({"service.name": SERVICE, "service.version": version} | given)


def _exporter(name: str, environ: Mapping[str, str]) -> SpanExporter:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    from epp.obs.otlp import OtlpExporter, target

    return OtlpExporter(target(environ))
