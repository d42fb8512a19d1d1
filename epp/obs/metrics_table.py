"""Every metric, declared once: name, type, labels, buckets, and the older name it is still told under.

Names, labels and bounds are those of the llm-d router where it has the metric; OURS holds those that only we have.
"""

from __future__ import annotations

from typing import Literal

from epp.obs.series import Spec, Twin

LONG_S = (
    *(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60, 120, 180),
    *(240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600),
)
REQUEST_BYTES = tuple(float(2**power) for power in range(6, 31))
# 32778 stands for 32768 in the router as well: a bound that differs would not add up with its series.
_POWERS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32778, 65536)
RESPONSE_BYTES = _POWERS
TOKENS_IN = (*_POWERS, 131072, 262144, 524288, 1048576)
TOKENS_OUT = _POWERS[:12]
PER_TOKEN_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
FIRST_TOKEN_S = LONG_S[:24]
NEXT_TOKEN_S = (
    *(0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2),
)
EACH_TOKEN_S = (*NEXT_TOKEN_S[:-1], 1.5, 2, 3, 4.5, 6, 12, 18, 24, 30, 36, 48, 60, 90, 120, 180, 270, 360)
GAP_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
FAST_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
PREDICTION_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
REQUEST_WORK_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
RESPONSE_WORK_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
STREAM_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600)
HIT_RATIO = tuple(tenths / 10 for tenths in range(11))
HIT_BYTES = (0.0, *(float(2**power) for power in range(4, 17)))
QUEUE_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EVICTION_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)

MODELS = ("model_name", "target_model_name")
FLOW = (*MODELS, "fairness_id", "priority")
PLUGIN = ("plugin_name", "plugin_type")
POOL = ("name",)

_OBJECTIVE = "inference_objective_"
_POOL = "inference_pool_"
_EXTENSION = "inference_extension_"
_SCHEDULER = "llm_d_inference_scheduler_"


def _twin(prefix: str, name: str, labels: tuple[str, ...] = MODELS) -> Twin:
    return Twin(prefix + name, labels)


REQUESTS = (
    Spec(
        "request_total", "counter", FLOW, "Requests sent to an endpoint.",
        twin=_twin(_OBJECTIVE, "request_total", (*MODELS, "priority")),
    ),
    Spec(
        "request_error_total", "counter", (*FLOW, "error_code"), "Requests refused, or failed by their endpoint.",
        twin=_twin(_OBJECTIVE, "request_error_total", (*MODELS, "error_code")),
    ),
    Spec(
        "request_duration_seconds", "histogram", FLOW, "From a request's headers to the end of its response.", LONG_S,
        _twin(_OBJECTIVE, "request_duration_seconds"),
    ),
    Spec(
        "request_size_bytes", "histogram", FLOW, "Size of request bodies.", REQUEST_BYTES,
        _twin(_OBJECTIVE, "request_sizes"),
    ),
    Spec(
        "response_size_bytes", "histogram", FLOW, "Size of response bodies.", RESPONSE_BYTES,
        _twin(_OBJECTIVE, "response_sizes"),
    ),
    Spec(
        "request_input_tokens", "histogram", FLOW, "Prompt tokens, as the engine counted them.", TOKENS_IN,
        _twin(_OBJECTIVE, "input_tokens"),
    ),
    Spec(
        "request_output_tokens", "histogram", FLOW, "Generated tokens, as the engine counted them.", TOKENS_OUT,
        _twin(_OBJECTIVE, "output_tokens"),
    ),
    Spec(
        "request_cached_tokens", "histogram", FLOW, "Prompt tokens the engine found in its prefix cache.", TOKENS_IN,
        _twin(_OBJECTIVE, "prompt_cached_tokens"),
    ),
    Spec(
        "request_running", "gauge", FLOW, "Requests that have an endpoint and no end yet.",
        twin=_twin(_OBJECTIVE, "running_requests", ("model_name",)),
    ),
    Spec(
        "request_ntpot_seconds", "histogram", FLOW, "Duration of a request by its generated tokens.", PER_TOKEN_S,
        _twin(_OBJECTIVE, "normalized_time_per_output_token_seconds"),
    ),
    Spec(
        "request_ttft_seconds", "histogram", (*FLOW, "streaming"),
        "From a request's headers to the first byte of its response's body.", FIRST_TOKEN_S,
    ),
    Spec(
        "request_streaming_tpot_seconds", "histogram", FLOW, "Time per generated token after the first.", NEXT_TOKEN_S
    ),
    Spec("request_streaming_itl_seconds", "histogram", FLOW, "Time between pieces of a streamed response.", GAP_S),
    Spec(
        "request_processing_duration_seconds", "histogram", (),
        "From a request's headers to its answer, waiting in the queue included.", REQUEST_WORK_S,
    ),
    Spec(
        "response_processing_duration_seconds", "histogram", (), "Time spent on a response's messages.", RESPONSE_WORK_S
    ),
    Spec(
        "model_rewrite_decisions_total", "counter", ("model_rewrite_name", "model_name", "target_model"),
        "Requests whose model a rewrite rule changed.",
        twin=_twin(
            _EXTENSION, "model_rewrite_decisions_total", ("model_rewrite_name", "model_name", "target_model")
        ),
    ),
)  # fmt: skip

POOLS = (
    *[
        Spec(
            f"average_{name}", "gauge", POOL, f"Mean {what} of the endpoints with a fresh reading.",
            twin=_twin(_POOL, f"average_{name}", POOL),
        )
        for name, what in (
            ("kv_cache_utilization", "KV-cache usage"),
            ("queue_size", "number of requests queued"),
            ("running_requests", "number of requests running"),
        )
    ],
    Spec("std_dev_kv_cache_utilization", "gauge", POOL, "Standard deviation of KV-cache usage over those endpoints."),
    Spec("std_dev_queue_size", "gauge", POOL, "Standard deviation of requests queued over those endpoints."),
    Spec("std_dev_running_requests", "gauge", POOL, "Standard deviation of requests running over those endpoints."),
    Spec("ready_endpoints", "gauge", POOL, "Endpoints in the pool.", twin=_twin(_POOL, "ready_pods", POOL)),
    Spec(
        "per_endpoint_queue_size", "gauge", ("name", "model_server_endpoint"), "Requests queued in each endpoint.",
        twin=_twin(_POOL, "per_pod_queue_size", ("name", "model_server_pod=model_server_endpoint")),
    ),
)  # fmt: skip

_ATTEMPT = ("status", "target_model_name", "endpoint_name", "namespace", "port")
_PLACE = ("extension_point", "plugin_type", "plugin_name")
SCHEDULING = (
    Spec(
        "scheduler_e2e_duration_seconds", "histogram", (), "Time of one decision.", FAST_S,
        _twin(_EXTENSION, "scheduler_e2e_duration_seconds", ()),
    ),
    Spec(
        "scheduler_attempts_total", "counter", _ATTEMPT, "Decisions, by what came of them.",
        twin=_twin(
            _EXTENSION, "scheduler_attempts_total",
            ("status", "target_model_name", "pod_name=endpoint_name", "namespace", "port"),
        ),
    ),
    Spec(
        "plugin_duration_seconds", "histogram", _PLACE, "Time of one call of a plug-in.", FAST_S,
        _twin(_EXTENSION, "plugin_duration_seconds", _PLACE),
    ),
    Spec(
        "info", "gauge", ("commit", "build_ref"), "What is running.",
        twin=_twin(_EXTENSION, "info", ("commit", "build_ref")),
    ),
    Spec(
        "datalayer_poll_errors_total", "counter", ("source_type",), "Readings of an endpoint that failed.",
        twin=_twin(_SCHEDULER, "datalayer_poll_errors_total", ("source_type",)),
    ),
    Spec(
        "datalayer_extract_errors_total", "counter", ("source_type", "extractor_type"),
        "Readings that arrived but lacked what was looked for.",
        twin=_twin(_SCHEDULER, "datalayer_extract_errors_total", ("source_type", "extractor_type")),
    ),
    Spec(
        "prefix_indexer_size", "gauge", PLUGIN, "Entries of the prefix index.",
        twin=_twin(_EXTENSION, "prefix_indexer_size", ()),
    ),
    Spec(
        "prefix_indexer_hit_ratio", "histogram", PLUGIN, "Share of a prompt that the picked endpoint holds.", HIT_RATIO,
        _twin(_EXTENSION, "prefix_indexer_hit_ratio", ()),
    ),
    Spec(
        "prefix_indexer_hit_bytes", "histogram", PLUGIN, "Bytes of a prompt that the picked endpoint holds.", HIT_BYTES,
        _twin(_EXTENSION, "prefix_indexer_hit_bytes", ()),
    ),
)  # fmt: skip

_INFLIGHT = ("endpoint_name", "namespace", "producer_name", "fairness_id", "priority")
LOAD = (
    Spec("inflight_requests", "gauge", _INFLIGHT, "Requests sent to an endpoint and not finished."),
    Spec("inflight_tokens", "gauge", _INFLIGHT, "Tokens of those requests that are still to be computed."),
)

_Q = "flow_control_"
_IN_POOL = ("inference_pool",)
_BAND = ("priority", *_IN_POOL)
_QUEUED = ("fairness_id", "priority", *_IN_POOL, *MODELS)
_OUTCOME = ("fairness_id", "priority", "outcome")


def _queue(
    name: str, kind: Literal["counter", "gauge", "histogram"], labels: tuple[str, ...], about: str,
    buckets: tuple[float, ...] = (), *, twin: bool = False,
) -> Spec:  # fmt: skip
    return Spec(_Q + name, kind, labels, about, buckets, _twin(_EXTENSION, _Q + name, labels) if twin else None)


QUEUE = (
    _queue(
        "request_queue_duration_seconds", "histogram", (*_OUTCOME, *_IN_POOL, *MODELS),
        "How long requests were in the queue.", QUEUE_S, twin=True,
    ),
    _queue("dispatch_cycle_duration_seconds", "histogram", (), "Time of one look at who may go.", FAST_S, twin=True),
    _queue(
        "request_enqueue_duration_seconds", "histogram", _OUTCOME, "Time of putting a request in.", FAST_S, twin=True
    ),
    _queue("queue_size", "gauge", _QUEUED, "Requests that wait.", twin=True),
    _queue("queue_bytes", "gauge", _QUEUED, "Bytes of the bodies of requests that wait.", twin=True),
    _queue("pool_saturation", "gauge", (*_IN_POOL, "stage"), "How full the endpoints are; 1 = full.", twin=True),
    _queue("stale_endpoints", "gauge", ("detector",), "Endpoints without a fresh reading."),
    _queue("capacity_utilization_requests", "gauge", _BAND, "Requests in a band's queue by its limit."),
    _queue("capacity_utilization_bytes", "gauge", _BAND, "Bytes in a band's queue by its limit."),
    _queue("global_capacity_utilization_requests", "gauge", _IN_POOL, "Requests in the queue by its limit."),
    _queue("global_capacity_utilization_bytes", "gauge", _IN_POOL, "Bytes in the queue by its limit."),
    _queue("requests_total", "counter", ("outcome", *_BAND), "Requests that came to the queue, by how they left it."),
    _queue("revocations_issued_total", "counter", _BAND, "Requests in flight that were ended for others."),
    _queue("revocations_total", "counter", ("outcome", *_IN_POOL), "How those ends went."),
    _queue("reclaim_target", "gauge", _IN_POOL, "Requests to be ended, as last reckoned."),
    _queue("pending_reclaim", "gauge", _IN_POOL, "Requests told to end that have not."),
    _queue(
        "revocation_confirmation_seconds", "histogram", _IN_POOL, "From telling a request to end to its end.",
        EVICTION_S,
    ),
)  # fmt: skip

_MODEL = (*PLUGIN, *MODELS)


def _predicted(name: str, about: str, buckets: tuple[float, ...], retired: str = "") -> Spec:
    return Spec(name, "histogram", _MODEL, about, buckets, _twin(_OBJECTIVE, retired or name), bool(retired))


def _by_type(name: str, kind: Literal["counter", "gauge"], about: str) -> Spec:
    return Spec(name, kind, (*_MODEL, "type"), about, twin=_twin(_OBJECTIVE, name, (*MODELS, "type")))


LATENCY = (
    _predicted("request_predicted_ttft_seconds", "TTFT predicted at the endpoint picked.", LONG_S),
    _predicted("request_predicted_tpot_seconds", "TPOT predicted there.", EACH_TOKEN_S),
    _predicted("request_ttft_prediction_duration_seconds", "Time to predict TTFT and TPOT.", PREDICTION_S),
    _predicted("request_tpot_prediction_duration_seconds", "Time to predict TTFT and TPOT.", PREDICTION_S),
    _by_type("request_slo_violation_total", "counter", "Requests that broke their latency SLO."),
    _by_type("inference_request_metric", "gauge", "The latest value of each type, in seconds."),
    _predicted("predictor_ttft_seconds", "Time to the first token.", LONG_S, "request_ttft_seconds"),
    _predicted("predictor_tpot_seconds", "Time per token after the first.", EACH_TOKEN_S, "request_tpot_seconds"),
)
"""Only with predicted-latency-producer."""

PROGRAMS = (
    Spec("program_aware_jains_fairness_index", "gauge", (), "How alike the programs were served; 1 = all the same."),
    Spec("program_aware_avg_wait_time_milliseconds", "gauge", ("program_id",), "Mean wait of a program's requests."),
    Spec("program_aware_attained_service_tokens", "gauge", ("program_id",), "Tokens a program had, decayed."),
)

OURS = (
    Spec("plugin_flaws_total", "counter", ("plugin_name", "rule"), "Results of a plug-in that broke the contract."),
    Spec("plugin_suspended", "gauge", ("plugin_name",), "1 while a plug-in is left out for being slow."),
    Spec("endpoint_cooling", "gauge", ("name", "endpoint_name"), "1 while an endpoint is left out for failing."),
    Spec("endpoint_failures_total", "counter", ("endpoint_name", "kind"), "Failures seen of an endpoint."),
    Spec("held_bytes", "gauge", (), "Request bodies held in memory."),
    Spec("response_pieces_total", "counter", ("way",), "Pieces of responses: sent on as they came (wrapped) or read."),
    Spec("body_refused_total", "counter", ("reason",), "Request bodies refused for their size."),
    Spec("loop_lag_seconds", "histogram", (), "How late the event loop came round.", LAG_S),
    Spec("config_reload_total", "counter", ("result",), "Changed configurations taken up or refused."),
    Spec("config_loaded_timestamp_seconds", "gauge", (), "When the configuration in force was loaded, since 1970."),
    Spec("leader", "gauge", (), "1 while this replica leads; absent without leader election."),
    Spec("watch_synced", "gauge", ("resource",), "1 while a kind of object is listed and watched."),
    Spec("watch_errors_total", "counter", ("resource", "cause"), "Lists and watches that failed."),
    Spec("watched_objects", "gauge", ("resource",), "Objects of a kind that are known."),
    Spec("broken_objects", "gauge", ("resource",), "Objects of a kind that can't be used as they are."),
)

STREAMS = (
    Spec("extproc_streams_inflight", "gauge", (), "ext_proc streams that are open."),
    Spec("extproc_stream_duration_seconds", "histogram", (), "Life of an ext_proc stream.", STREAM_S),
    Spec("extproc_streams_total", "counter", ("code",), "ext_proc streams that ended, by gRPC status."),
)
"""Only with --enable-grpc-stream-metrics."""

TABLE = (*REQUESTS, *POOLS, *SCHEDULING, *LOAD, *QUEUE, *LATENCY, *PROGRAMS, *OURS)
