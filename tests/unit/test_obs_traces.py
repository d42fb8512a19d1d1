import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent import futures

import grpc
import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from epp.obs import otlp, traces
from epp.obs.traces import Tracer
from epp.testing import endpoints
from epp.types import Decision, Run, Spent, Vote

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": (f"00-{TRACE_ID}-{PARENT_ID}-01",)}
NOT_SAMPLED = {"traceparent": (f"00-{TRACE_ID}-{PARENT_ID}-00",)}


class Collector:
    """An OTLP receiver on loopback."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        service, method = otlp.EXPORT[1:].split("/")
        handler = grpc.unary_unary_rpc_method_handler(self._take, ExportTraceServiceRequest.FromString)
        self._server = grpc.server(futures.ThreadPoolExecutor(1))
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {method: handler})])
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _take(self, request: ExportTraceServiceRequest, _: grpc.ServicerContext) -> bytes:
        self.requests.append(request)
        return b""

    def close(self) -> None:
        self._server.stop(None).wait()

    @property
    def resource(self) -> dict[str, str]:
        return {pair.key: pair.value.string_value for pair in self.requests[0].resource_spans[0].resource.attributes}

    @property
    def spans(self) -> dict[str, object]:
        """By name."""
        batches = [batch for request in self.requests for batch in request.resource_spans]
        scopes = [scope for batch in batches for scope in getattr(batch, otlp.SCOPES)]
        return {span.name: span for scope in scopes for span in scope.spans}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def tracer(collector: Collector, **environ: str) -> Tracer:
    everything = {"OTEL_TRACES_SAMPLER_ARG": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
    made = Tracer.from_environment(True, everything | environ, version="v1")
    assert made is not None
    return made


def decision() -> Decision:
    made = Decision("r-1", "base", 5.0, 1, primary="default", took_s=0.00003)
    made.spent = [Spent("queue-scorer", "scorer", 0.00001), Spent("max-score-picker", "picker", 0.00002)]
    picked = endpoints(waiting=[0]).records
    made.runs["default"] = Run(
        "default", picked, votes=[Vote("queue-scorer", 2.0, np.ones(1))], totals=np.array([2.0]), picked=picked
    )
    return made


def parents(spans: Mapping[str, object]) -> dict[str, str]:
    """Span name → name of its parent, or the parent's id in hexadecimal if it is elsewhere."""
    names = {span.span_id: name for name, span in spans.items()}  # type: ignore[attr-defined]
    return {
        name: names.get(span.parent_span_id, span.parent_span_id.hex())  # type: ignore[attr-defined]
        for name, span in spans.items()
    }


def test_a_collector_gets_the_request_and_its_decision(collector: Collector) -> None:
    made = tracer(collector)
    trace = made.start(SAMPLED, "r-1", priority=-1)
    trace.decided(decision())
    trace.end(status=200, error="")
    made.close()
    assert parents(collector.spans) == {
        "gateway.request": PARENT_ID,
        "gateway.request_orchestration": "gateway.request",
        "run_scheduler_profile": "gateway.request_orchestration",
        "filter_endpoints": "run_scheduler_profile",
        "llm_d.epp.scoring": "run_scheduler_profile",
        "llm_d.epp.scorer.queue-scorer": "llm_d.epp.scoring",
        "pick_endpoints": "run_scheduler_profile",
    }
    assert {span.trace_id.hex() for span in collector.spans.values()} == {TRACE_ID}  # type: ignore[attr-defined]


def test_the_engine_goes_on_from_the_request(collector: Collector) -> None:
    made = tracer(collector)
    trace = made.start(SAMPLED | {"tracestate": ("vendor=1",), "baggage": ("user=a",)}, "r-1")
    headers = trace.headers()
    trace.end(status=200, error="")
    made.close()
    span_id = collector.spans["gateway.request"].span_id.hex()  # type: ignore[attr-defined]
    assert headers == {
        "traceparent": f"00-{TRACE_ID}-{span_id}-01",
        "tracestate": "vendor=1",
        "baggage": "user=a",
    }


def test_a_failed_request_is_marked(collector: Collector) -> None:
    made = tracer(collector)
    trace = made.start({}, "r-1")
    trace.end(status=503, error="no endpoints")
    made.close()
    span = collector.spans["gateway.request"]
    assert (span.status.code, span.status.message) == (2, "no endpoints")  # type: ignore[attr-defined]
    assert {pair.key: pair.value.int_value for pair in span.attributes}["http.response.status_code"] == 503  # type: ignore[attr-defined]


def test_the_service_is_named_by_default_or_by_variables(collector: Collector) -> None:
    made = tracer(collector, OTEL_SERVICE_NAME="a", OTEL_RESOURCE_ATTRIBUTES="pod=a%20b,service.name=b")
    made.start({}, "r-1").end(status=200, error="")
    made.close()
    assert collector.resource == {"service.name": "a", "service.version": "v1", "pod": "a b"}


def test_nothing_is_exported_of_a_trace_that_its_beginner_does_not_record(collector: Collector) -> None:
    made = tracer(collector)
    trace = made.start(NOT_SAMPLED, "r-1")
    trace.decided(decision())
    assert trace.headers() == {}
    trace.end(status=200, error="")
    made.close()
    assert collector.requests == []


def test_a_trace_that_begins_here_unrecorded_stays_unrecorded_in_the_engine(collector: Collector) -> None:
    made = tracer(collector, OTEL_TRACES_SAMPLER_ARG="0")
    headers = made.start({}, "r-1").headers()
    made.close()
    recorded = int(headers["traceparent"][-2:], 16) & 1
    assert recorded == 0


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, set()),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, set()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {"otlp"}),
        ({"OTEL_TRACES_EXPORTER": "console"}, {"console"}),
        ({"OTEL_TRACES_EXPORTER": "OTLP, console"}, {"otlp", "console"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "x"}, {"otlp"}),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "x"}, {"otlp"}),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, set()),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, set()),
    ],
)
def test_where_spans_go(environ: dict[str, str], expected: set[str]) -> None:
    assert traces.exporters(environ) == expected


@pytest.mark.parametrize(
    ("sampler", "text", "share", "told"),
    [
        ("", "", 0.1, False),
        ("parentbased_traceidratio", "0.05", 0.05, False),
        ("", "1", 1.0, False),
        ("always_on", "1", 0.1, True),
        ("", "2", 0.1, True),
        ("", "often", 0.1, True),
    ],
)
def test_how_many_traces_are_recorded(
    sampler: str, text: str, share: float, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": text}
    assert traces.sampled_share(environ) == share
    assert bool(caplog.records) is told


@pytest.mark.parametrize(
    ("enabled", "environ"), [(True, {}), (False, {"OTEL_TRACES_EXPORTER": "otlp"})], ids=["no exporter", "switched off"]
)
def test_without_an_exporter_there_is_no_tracer(enabled: bool, environ: dict[str, str]) -> None:
    assert Tracer.from_environment(enabled, environ) is None


def test_without_an_exporter_opentelemetry_is_not_even_imported() -> None:
    program = (
        "import sys; from epp.obs.traces import Tracer; Tracer.from_environment(True, {});"
        "sys.exit(any(name.split('.')[0] == 'opentelemetry' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_spans_are_printed_if_that_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    made = Tracer.from_environment(True, {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER_ARG": "1"})
    assert made is not None
    made.start({}, "r-1").end(status=200, error="")
    made.close()
    assert '"name": "gateway.request"' in capsys.readouterr().out
