"""Metrics that belong to predicted-latency-producer: what was predicted, what came of it, which SLOs were broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epp.types import Decision, Outcome, Request

if TYPE_CHECKING:
    from epp.obs.metrics import Metrics

PRODUCER = "predicted-latency-producer"
MS = 1e-3


class LatencyMetrics:
    """Hears of decisions and ends while a producer of that type is configured, under the name `plugin`."""

    def __init__(self, metrics: Metrics, plugin: str) -> None:
        self._metrics = metrics
        self._plugin = plugin
        families = metrics.families
        self._histograms = families.histograms
        self._latest = families.cells("inference_request_metric")
        self._broken = families.cells("request_slo_violation_total")

    def decided(self, request: Request, decision: Decision) -> None:
        """The decision still has its signals."""
        labels = self._labels(request)
        for spent in decision.spent:
            if spent.by == self._plugin and spent.place == "signal":
                # Both are predicted in one step.
                self._tell(
                    "request_ttft_prediction_duration_seconds", "ttft_prediction_duration", labels, spent.seconds
                )
                self._tell(
                    "request_tpot_prediction_duration_seconds", "tpot_prediction_duration", labels, spent.seconds
                )
        row, signals = decision.run.picked_rows[0], decision.signals
        for kind in ("ttft", "tpot"):
            predicted = signals.get(f"predicted_{kind}_ms")
            if predicted is not None and predicted[row] > 0.0:
                self._tell(f"request_predicted_{kind}_seconds", f"predicted_{kind}", labels, predicted[row] * MS)

    def ended(self, request: Request, outcome: Outcome) -> None:
        if outcome.cause != "natural" or outcome.ttft_s is None:
            return
        labels = self._labels(request)
        self._tell("predictor_ttft_seconds", "ttft", labels, outcome.ttft_s)
        self._judge("ttft", labels, outcome.ttft_s, request.slo_ttft_ms)
        tokens = outcome.usage.completion_tokens if outcome.usage else outcome.pieces
        if outcome.streamed and tokens > 1:
            each = (outcome.duration_s - outcome.ttft_s) / (tokens - 1)
            self._tell("predictor_tpot_seconds", "tpot", labels, each)
            self._judge("tpot", labels, each, request.slo_tpot_ms)

    def _labels(self, request: Request) -> tuple[str, str, str, str]:
        model, target, *_ = self._metrics.flow(request).labels
        return self._plugin, PRODUCER, model, target

    def _tell(self, metric: str, kind: str, labels: tuple[str, str, str, str], seconds: float) -> None:
        self._histograms(metric).observe(labels, float(seconds))
        self._latest.set((*labels, kind), float(seconds))

    def _judge(self, kind: str, labels: tuple[str, str, str, str], seconds: float, slo_ms: float | None) -> None:
        if slo_ms and seconds > slo_ms * MS:
            self._broken.add((*labels, kind))
