import pytest

from epp.obs.metrics_table import STREAMS, TABLE

M = "model_name target_model_name fairness_id priority"
CATALOGUE = {
    "request_total": (M, "inference_objective_request_total", "model_name target_model_name priority"),
    "request_error_total": (
        M + " error_code",
        "inference_objective_request_error_total",
        "model_name target_model_name error_code",
    ),
    "request_duration_seconds": (M, "inference_objective_request_duration_seconds", "model_name target_model_name"),
    "request_size_bytes": (M, "inference_objective_request_sizes", "model_name target_model_name"),
    "response_size_bytes": (M, "inference_objective_response_sizes", "model_name target_model_name"),
    "request_input_tokens": (M, "inference_objective_input_tokens", "model_name target_model_name"),
    "request_output_tokens": (M, "inference_objective_output_tokens", "model_name target_model_name"),
    "request_cached_tokens": (M, "inference_objective_prompt_cached_tokens", "model_name target_model_name"),
    "request_running": (M, "inference_objective_running_requests", "model_name"),
    "request_ntpot_seconds": (
        M,
        "inference_objective_normalized_time_per_output_token_seconds",
        "model_name target_model_name",
    ),
    "request_ttft_seconds": (M + " streaming", None, None),
    "request_streaming_tpot_seconds": (M, None, None),
    "request_streaming_itl_seconds": (M, None, None),
    "request_processing_duration_seconds": ("", None, None),
    "response_processing_duration_seconds": ("", None, None),
    "average_kv_cache_utilization": ("name", "inference_pool_average_kv_cache_utilization", "name"),
    "average_queue_size": ("name", "inference_pool_average_queue_size", "name"),
    "average_running_requests": ("name", "inference_pool_average_running_requests", "name"),
    "ready_endpoints": ("name", "inference_pool_ready_pods", "name"),
    "per_endpoint_queue_size": (
        "name model_server_endpoint",
        "inference_pool_per_pod_queue_size",
        "name model_server_pod",
    ),
    "plugin_duration_seconds": (
        "extension_point plugin_type plugin_name",
        "inference_extension_plugin_duration_seconds",
        "extension_point plugin_type plugin_name",
    ),
    "inflight_requests": ("endpoint_name namespace producer_name fairness_id priority", None, None),
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_labels_are_those_that_dashboards_ask_for(name: str) -> None:
    (spec,) = [spec for spec in TABLE if spec.name == name]
    labels, twin, twin_labels = CATALOGUE[name]
    assert spec.labels == tuple(labels.split())
    assert (spec.twin.name if spec.twin else None) == twin
    if spec.twin and twin_labels is not None:
        assert tuple(label.partition("=")[0] for label in spec.twin.labels) == tuple(twin_labels.split())


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("request_duration_seconds", 35, (0.005, 1.25, 3600)),
        ("request_size_bytes", 25, (64, 1024, 1073741824)),
        ("response_size_bytes", 15, (1, 32778, 65536)),
        ("request_input_tokens", 19, (1, 32778, 1048576)),
        ("request_output_tokens", 12, (1, 16, 8192)),
        ("request_ntpot_seconds", 13, (0.001, 0.2, 10)),
        ("request_ttft_seconds", 24, (0.005, 45, 120)),
        ("request_streaming_tpot_seconds", 19, (0.0005, 0.00205, 2)),
        ("request_streaming_itl_seconds", 15, (0.001, 0.75, 2)),
        ("plugin_duration_seconds", 10, (0.0001, 0.1)),
        ("prefix_indexer_hit_ratio", 11, (0, 0.3, 1)),
        ("prefix_indexer_hit_bytes", 14, (0, 16, 65536)),
    ],
)
def test_bucket_bounds(name: str, count: int, some: tuple[float, ...]) -> None:
    (spec,) = [spec for spec in TABLE if spec.name == name]
    assert len(spec.buckets) == count
    assert list(spec.buckets) == sorted(set(spec.buckets))
    assert set(some) <= set(spec.buckets)


def test_no_metric_is_declared_twice() -> None:
    names = [spec.name for spec in (*TABLE, *STREAMS)] + [spec.twin.name for spec in TABLE if spec.twin]
    assert len(names) == len(set(names))
