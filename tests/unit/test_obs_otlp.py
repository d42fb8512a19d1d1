import socket
from collections.abc import Mapping, Sequence
from concurrent import futures
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import IdGenerator, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from epp.obs.otlp import EXPORT, OtlpError, OtlpExporter, encode, target

RECORDED = Path(__file__).parents[1] / "fixtures" / "otlp" / "two_spans.bin"


class Counting(IdGenerator):
    """Ids that are the same each time."""

    def __init__(self) -> None:
        self._last = 0x10

    def generate_span_id(self) -> int:
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        return 0xABC


def two_spans() -> Sequence[ReadableSpan]:
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "llm-d-epp"}), id_generator=Counting())
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("epp")
    remote = SpanContext(0xFEED, 0xBEEF, True, TraceFlags(1), TraceState([("vendor", "1"), ("other", "2")]))
    about = {"text": "é", "whole": -3, "real": 0.5, "yes": True}
    parent = set_span_in_context(NonRecordingSpan(remote))
    root = tracer.start_span("gateway.request", parent, SpanKind.SERVER, about, start_time=1_000)
    lists = {"names": ["a", "b"], "scores": [1.0, 0.5], "none": []}
    tracer.start_span("pick_endpoints", set_span_in_context(root), attributes=lists, start_time=1_500).end(1_700)
    root.set_status(Status(StatusCode.ERROR, "no endpoints"))
    root.end(2_000)
    provider.shutdown()
    return kept.get_finished_spans()


def test_spans_are_encoded_as_opentelemetry_encodes_them() -> None:
    recorded = ExportTraceServiceRequest.FromString(RECORDED.read_bytes())
    assert ExportTraceServiceRequest.FromString(encode(two_spans())) == recorded


def test_nothing_is_encoded_as_nothing() -> None:
    assert encode([]) == b""


class Collector:
    """Takes what is exported to it; a gRPC server on loopback."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.taken: list[bytes] = []
        self.metadata: list[Mapping[str, str]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        handler = grpc.unary_unary_rpc_method_handler(self._take)
        service, method = EXPORT[1:].split("/")
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def _take(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.taken.append(request)
        self.metadata.append({key: str(value) for key, value in context.invocation_metadata()})
        return b""

    def __enter__(self) -> "Collector":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def export(environ: Mapping[str, str]) -> SpanExportResult:
    exporter = OtlpExporter(target(environ))
    try:
        return exporter.export(two_spans())
    finally:
        exporter.shutdown()


def localhost_certificate() -> tuple[bytes, bytes]:
    """(key, certificate) in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "collector")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_a_collector_gets_the_spans_with_the_headers_asked_for(compression: str) -> None:
    with Collector() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20x, tenant=a",
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        assert export(environ) is SpanExportResult.SUCCESS
    assert collector.taken == [encode(two_spans())]
    assert collector.metadata[0]["authorization"] == "Bearer x"
    assert collector.metadata[0]["tenant"] == "a"


def test_a_collector_behind_tls_is_trusted_by_its_certificate(tmp_path: Path) -> None:
    key, chain = localhost_certificate()
    (tmp_path / "ca.crt").write_bytes(chain)
    with Collector(grpc.ssl_server_credentials([(key, chain)])) as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://localhost:{collector.port}",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tmp_path / "ca.crt"),
        }
        assert export(environ) is SpanExportResult.SUCCESS
    assert len(collector.taken) == 1


def test_without_a_collector_the_spans_are_lost_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}", "OTEL_EXPORTER_OTLP_TIMEOUT": "200"}
        assert export(environ) is SpanExportResult.FAILURE
    assert f"2 spans lost: collector {address}:" in caplog.text


@pytest.mark.parametrize(
    ("environ", "address", "plaintext"),
    [
        ({}, "localhost:4317", True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, "c:1", True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:1/"}, "c:1", False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:1"}, "c:1", False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:1", "OTEL_EXPORTER_OTLP_INSECURE": "True"}, "c:1", True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b:2"}, "b:2", True),
    ],
)
def test_where_to_export(environ: dict[str, str], address: str, plaintext: bool) -> None:
    found = target(environ)
    assert (found.address, found.credentials is None, found.timeout_s) == (address, plaintext, 10.0)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("ENDPOINT", "ftp://x", "'ftp://x' is not a URL such as http://localhost:4317"),
        ("TIMEOUT", "10s", "'10s' is not a number of milliseconds such as 10000"),
        ("TIMEOUT", "-1", "'-1' is not a number of milliseconds"),
        ("HEADERS", "secret", "it must be a list such as key=value,key2=value2"),
        ("CERTIFICATE", "/none/ca.crt", "/none/ca.crt: No such file or directory"),
        ("CLIENT_CERTIFICATE", "/none/tls.crt", "/none/tls.crt: No such file or directory"),
    ],
)
def test_variables_that_cannot_be_used(variable: str, value: str, message: str) -> None:
    with pytest.raises(OtlpError) as caught:
        target({f"OTEL_EXPORTER_OTLP_{variable}": value})
    assert str(caught.value).startswith(f"OTEL_EXPORTER_OTLP_{variable}: {message}")
