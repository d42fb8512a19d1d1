"""Metrics of predicted-latency-producer: what was predicted, what came of it, which SLOs were broken."""

from __future__ import annotations

import time

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from epp.obs.decisions import Decisions
from epp.obs.metrics import Metrics
from epp.obs.metrics_table import TABLE
from epp.obs.observer import Observers
from epp.testing import endpoints
from epp.types import Decision, Outcome, Request, Run, Spent, Usage

PODS = endpoints(waiting=[0, 0]).records
REQUEST = Request(id="r", model="base", incoming_model="chat", slo_ttft_ms=400.0, slo_tpot_ms=250.0)
MODELS = {"model_name": "chat", "target_model_name": "base"}
OWNER = {"plugin_name": "oracle", "plugin_type": "predicted-latency-producer", **MODELS}


class Board:
    """Observers with a producer called oracle, and what a scrape reads."""

    def __init__(self, kind: str = "predicted-latency-producer") -> None:
        self.registry = CollectorRegistry()
        metrics = Metrics(self.registry)
        self.observers = Observers(metrics, Decisions(time.time), None, now=lambda: 1.0, verbosity=0)
        self.observers.configured({"oracle": kind})

    def read(self, name: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def names(self) -> set[str]:
        return {metric.name for metric in self.registry.collect()}

    def decided(self, predicted: float = 1.0) -> Decision:
        made = Decision("r", "base", 1.0, 2, primary="default", took_s=0.0003)
        made.runs["default"] = Run("default", PODS, picked=PODS[1:2], picked_rows=(1,))
        made.spent.append(Spent("oracle", "signal", 0.00002))
        made.signals = {
            "predicted_ttft_ms": np.array([1.0, 300.0 * predicted]),
            "predicted_tpot_ms": np.array([1.0, 30.0 * predicted]),
        }
        self.observers.decided(REQUEST, made)
        return made

    def ended(self, **changes: object) -> None:
        usage = Usage(completion_tokens=11)
        values = {"usage": usage, "status": 200, "cause": "natural", "ttft_s": 0.5, "duration_s": 2.5, "streamed": True}
        self.observers.ended(REQUEST, self.decided(), Outcome(**(values | changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("quantity", "seconds"), [("ttft", 0.3), ("tpot", 0.03)])
def test_what_was_predicted_for_the_endpoint_picked_is_told_under_both_names(quantity: str, seconds: float) -> None:
    board = Board()
    board.decided()
    assert board.read(f"llm_d_epp_request_predicted_{quantity}_seconds_sum", **OWNER) == pytest.approx(seconds)
    older = f"inference_objective_request_predicted_{quantity}_seconds_sum"
    assert board.read(older, **MODELS) == pytest.approx(seconds)
    gauge = board.read("llm_d_epp_inference_request_metric", **OWNER, type=f"predicted_{quantity}")
    assert gauge == pytest.approx(seconds)


def test_the_time_that_predicting_took_is_told() -> None:
    board = Board()
    board.decided()
    assert board.read("llm_d_epp_request_ttft_prediction_duration_seconds_bucket", **OWNER, le="0.0001") == 1
    assert board.read("inference_objective_request_tpot_prediction_duration_seconds_sum", **MODELS) == 0.00002


def test_without_a_prediction_none_is_told() -> None:
    board = Board()
    board.decided(predicted=0.0)
    assert "llm_d_epp_request_predicted_ttft_seconds" not in board.names()
    assert "llm_d_epp_request_ttft_prediction_duration_seconds" in board.names()


def test_a_broken_slo_is_counted_by_type() -> None:
    board = Board()
    board.ended()
    assert board.read("llm_d_epp_request_slo_violation_total", **OWNER, type="ttft") == 1
    assert board.read("inference_objective_request_slo_violation_total", **MODELS, type="ttft") == 1
    assert board.read("llm_d_epp_request_slo_violation_total", **OWNER, type="tpot") is None


def test_what_came_of_it_is_told_under_the_older_names() -> None:
    board = Board()
    board.ended()
    assert board.read("inference_objective_request_ttft_seconds_sum", **MODELS) == 0.5
    assert board.read("inference_objective_request_tpot_seconds_sum", **MODELS) == pytest.approx(0.2)
    assert "llm_d_epp_predictor_ttft_seconds" not in board.names()


def test_nothing_of_this_is_told_without_the_producer() -> None:
    board = Board(kind="queue-scorer")
    board.ended()
    assert [name for name in board.names() if "predict" in name or "inference_request_metric" in name] == []


@pytest.mark.parametrize(
    ("name", "count", "some"),
    [
        ("request_predicted_ttft_seconds", 35, (0.005, 1.25, 3600)),
        ("request_predicted_tpot_seconds", 35, (0.0005, 0.00205, 1, 1.5, 4.5, 360)),
        ("request_ttft_prediction_duration_seconds", 14, (0.0001, 0.0005, 5)),
    ],
)
def test_bucket_bounds_are_the_routers(name: str, count: int, some: tuple[float, ...]) -> None:
    (spec,) = [spec for spec in TABLE if spec.name == name]
    assert len(spec.buckets) == count
    assert list(spec.buckets) == sorted(set(spec.buckets))
    assert set(some) <= set(spec.buckets)
