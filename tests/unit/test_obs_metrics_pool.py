import numpy as np
from prometheus_client import CollectorRegistry

from epp.obs.metrics import Metrics
from epp.testing import endpoints
from epp.types import Request

PODS = endpoints(waiting=[0, 0, 0]).records
REQUEST = Request(fairness_id="team", priority=-1)


class Board:
    """A Metrics and what a scrape of it reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)

    def read(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_pool_gauges_average_the_fresh() -> None:
    board = Board()
    fresh = np.array([True, True, False])
    board.metrics.pool("p", endpoints(waiting=[1, 4, 90], kv_usage=[0, 0.5, 1]), fresh)
    assert board.read("llm_d_epp_average_queue_size", name="p") == 2.5
    assert board.read("inference_pool_average_kv_cache_utilization", name="p") == 0.25
    assert board.read("llm_d_epp_std_dev_queue_size", name="p") == 1.5
    assert board.read("llm_d_epp_ready_endpoints", name="p") == 3
    assert board.read("inference_pool_ready_pods", name="p") == 3
    assert board.read("inference_pool_per_pod_queue_size", name="p", model_server_pod="e2") == 90


def test_pool_gauges_freeze_when_nothing_is_fresh() -> None:
    board = Board()
    board.metrics.pool("p", endpoints(waiting=[1, 2, 3]), np.ones(3, dtype=bool))
    board.metrics.pool("p", endpoints(waiting=[9, 9, 9]), np.zeros(3, dtype=bool))
    assert board.read("llm_d_epp_average_queue_size", name="p") == 2


def test_the_series_of_endpoints_that_are_gone_go() -> None:
    board = Board()
    board.metrics.inflight(PODS[0], REQUEST, "load", 1, 50.0)
    board.metrics.inflight(PODS[0], REQUEST, "load", -1, -50.0)
    board.metrics.inflight(PODS[1], REQUEST, "load", 1, 50.0)
    board.metrics.pool("p", endpoints(waiting=[1, 2, 3]), np.ones(3, dtype=bool))
    board.metrics.pool("p", endpoints(waiting=[1, 2, 3]).take(np.array([2])), np.ones(1, dtype=bool))
    queue = "llm_d_epp_per_endpoint_queue_size"
    assert board.read(queue, name="p", model_server_endpoint="e0") is None
    assert board.read(queue, name="p", model_server_endpoint="e2") == 3
    flow = {"producer_name": "load", "fairness_id": "team", "priority": "-1", "namespace": "default"}
    assert board.read("llm_d_epp_inflight_requests", **flow, endpoint_name="e0") is None
    assert board.read("llm_d_epp_inflight_tokens", **flow, endpoint_name="e1") == 50


def test_an_empty_pool_is_shown_as_empty() -> None:
    board = Board()
    board.metrics.pool("p", endpoints(), np.zeros(0, dtype=bool))
    assert board.read("llm_d_epp_ready_endpoints", name="p") == 0


def test_cooling_endpoints_are_marked() -> None:
    board = Board()
    board.metrics.pool("p", endpoints(waiting=[0, 0, 0]), np.ones(3, dtype=bool), {"default/e1"})
    cooling = [board.read("llm_d_epp_endpoint_cooling", name="p", endpoint_name=f"e{i}") for i in range(3)]
    assert cooling == [0, 1, 0]
