"""Spans to a collector by OTLP over gRPC, as the OTEL_EXPORTER_OTLP_* variables say.

Not OpenTelemetry's own exporter: xds-protos installs a copy of the OTLP messages from before fields were renamed, over
that of opentelemetry-proto, and with it that exporter can't be imported. Field numbers never changed, so fields that
were renamed are asked for by number here, and either copy will do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire
from opentelemetry.proto.trace.v1.trace_pb2 import Status as WireStatus
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from epp.obs.logs import OnceAMinute
from epp.obs.traces import OtlpError

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ENDPOINT = "http://localhost:4317"
TIMEOUT_MS = 10_000.0
# A collector that restarts is tried again while the timeout lasts.
RETRY = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.5s",
"maxBackoff": "5s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}}]}"""
# ResourceSpans.scope_spans and ScopeSpans.scope, by whatever name.
SCOPES = ResourceSpans.DESCRIPTOR.fields_by_number[2].name
SCOPE = getattr(ResourceSpans(), SCOPES).add().DESCRIPTOR.fields_by_number[1].name

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to export."""

    address: str
    """host:port."""
    credentials: grpc.ChannelCredentials | None
    """None = plaintext."""
    metadata: tuple[tuple[str, str], ...]
    timeout_s: float
    compression: grpc.Compression


def target(environ: Mapping[str, str]) -> Target:
    """What the variables say; OTEL_EXPORTER_OTLP_TRACES_X goes before OTEL_EXPORTER_OTLP_X. Raises OtlpError."""

    def setting(name: str) -> str:
        return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or ""

    address, plaintext = _address(setting("ENDPOINT") or ENDPOINT, setting("INSECURE"))
    parts = [_contents(f"OTEL_EXPORTER_OTLP_{name}", setting(name)) for name in ("CERTIFICATE", "CLIENT_KEY")]
    chain = _contents("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", setting("CLIENT_CERTIFICATE"))
    return Target(
        address,
        None if plaintext else grpc.ssl_channel_credentials(parts[0], parts[1], chain),
        _metadata(setting("HEADERS")),
        _timeout_s(setting("TIMEOUT")),
        grpc.Compression.Gzip if setting("COMPRESSION").lower() == "gzip" else grpc.Compression.NoCompression,
    )


def _address(endpoint: str, insecure: str) -> tuple[str, bool]:
    """(host:port, plaintext?); a scheme decides, and without one INSECURE does."""
    if "://" not in endpoint:
        return endpoint, insecure.lower() == "true"
    url = urlsplit(endpoint)
    if url.scheme not in {"http", "https"} or not url.netloc:
        raise OtlpError(f"OTEL_EXPORTER_OTLP_ENDPOINT: {endpoint!r} is not a URL such as {ENDPOINT}")
    return url.netloc, url.scheme == "http"


def _contents(variable: str, path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise OtlpError(f"{variable}: {path}: {error.strerror}") from None


def _metadata(text: str) -> tuple[tuple[str, str], ...]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if any(not equals or not key.strip() for key, equals, _ in pairs):
        # Not quoted: it may hold a password.
        raise OtlpError("OTEL_EXPORTER_OTLP_HEADERS: it must be a list such as key=value,key2=value2")
    return tuple((unquote(key).strip().lower(), unquote(value).strip()) for key, _, value in pairs)


def _timeout_s(text: str) -> float:
    try:
        timeout_ms = float(text) if text else TIMEOUT_MS
    except ValueError:
        timeout_ms = 0.0
    if not 0 < timeout_ms < float("inf"):
        raise OtlpError(f"OTEL_EXPORTER_OTLP_TIMEOUT: {text!r} is not a number of milliseconds such as 10000")
    return timeout_ms / 1000


class OtlpExporter(SpanExporter):
    """Sends batches of spans; what can't be sent is lost, and said once a minute."""

    def __init__(self, to: Target) -> None:
        options = (("grpc.service_config", RETRY),)
        if to.credentials is None:
            self._channel = grpc.insecure_channel(to.address, options, to.compression)
        else:
            self._channel = grpc.secure_channel(to.address, to.credentials, options, to.compression)
        self._send: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(EXPORT)
        self._to = to
        self._once = OnceAMinute(time.monotonic)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            self._send(encode(spans), timeout=self._to.timeout_s, metadata=self._to.metadata)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else error
            if self._once("export"):
                log.warning("%d spans lost: collector %s: %s (told once a minute)", len(spans), self._to.address, code)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._channel.close()


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """An ExportTraceServiceRequest; all spans are of one resource and scope, since one Tracer made them."""
    request = ExportTraceServiceRequest()
    if spans:
        batch = request.resource_spans.add()
        batch.resource.attributes.extend(_pairs(spans[0].resource.attributes))
        scope = getattr(batch, SCOPES).add()
        if spans[0].instrumentation_scope is not None:
            getattr(scope, SCOPE).name = spans[0].instrumentation_scope.name
        scope.spans.extend(map(_wire, spans))
    wire: bytes = request.SerializeToString()
    return wire


def _wire(span: ReadableSpan) -> Wire:
    context = span.get_span_context()
    assert context is not None
    wire = Wire(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header(),
        parent_span_id=span.parent.span_id.to_bytes(8, "big") if span.parent else b"",
        name=span.name,
        # OTLP counts from "unspecified", OpenTelemetry's enumeration from "internal".
        kind=Wire.SpanKind.ValueType(span.kind.value + 1),
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        attributes=_pairs(span.attributes or {}),
    )
    wire.status.message = span.status.description or ""
    # Both enumerations are 0 unset, 1 ok, 2 error.
    wire.status.code = WireStatus.StatusCode.ValueType(span.status.status_code.value)
    return wire


def _pairs(attributes: Mapping[str, object]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in attributes.items()]


def _value(value: object) -> AnyValue:
    found = AnyValue()
    if isinstance(value, bool):
        found.bool_value = value
    elif isinstance(value, int):
        found.int_value = value
    elif isinstance(value, float):
        found.double_value = value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        found.array_value.values.extend(map(_value, value))
    else:
        found.string_value = str(value)
    return found
