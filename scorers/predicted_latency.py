"""predicted-latency-producer: time to the first token and time per token at each endpoint, predicted in process.

Two linear models, of waiting and running requests, KV usage, tokens in flight and this request's uncached tokens, are
learned from the requests that finish (`scorers/latency_model.py`). No service is asked.
"""

from __future__ import annotations

import os
from typing import Annotated

from msgspec import Meta

from epp import Column, Decision, Endpoints, Outcome, Request, column, signal
from scorers.latency_predictor import LatencyPredictor, Prediction

CONTEXT_TTL_NS = 300_000_000_000
SERVICE_VARIABLES = (
    *("TRAINING_SERVER_URL", "PREDICTION_SERVER_URL", "LATENCY_MAX_SAMPLE_SIZE", "LATENCY_FLUSH_INTERVAL_SEC"),
    *("LATENCY_METRICS_INTERVAL_SEC", "LATENCY_HTTP_TIMEOUT_SEC", "LATENCY_MAX_BULK_SIZE"),
    *("LATENCY_COALESCE_WINDOW_MS", "LATENCY_MAX_COALESCED_ROWS", "LATENCY_MAX_CONCURRENT_DISPATCHES"),
    "LATENCY_USE_NATIVE_XGBOOST",
)
"""Of the llm-d router's client for prediction services."""


@signal(
    provides={
        "predicted_ttft_ms": column(0.0),
        "predicted_tpot_ms": column(0.0),
        "tpot_headroom_ms": column(0.0),
        "latency_prediction": Prediction(),
    },
    chosen_by="latency_prediction_info_producer_name",
    by_default=True,
)
class PredictedLatencyProducer:
    """Predict each endpoint's TTFT and TPOT for this request with a model learned from the answers seen so far.

    0 means that there is no prediction: everywhere until the model has seen enough, and while it is far off.
    `tpot_headroom_ms` is the TPOT SLO less the prediction; 0 without `streaming_mode`.
    """

    def __init__(
        self,
        *,
        slo_buffer_factor: Annotated[float, Meta(gt=0)] = 1.0,
        context_ttl: Annotated[int, Meta(gt=0)] = CONTEXT_TTL_NS,
        streaming_mode: bool = False,
        endpoint_role_label: str = "",
        predict_in_produce: bool = True,
        prefix_match_info_producer_name: str = "",
        in_flight_load_producer_name: str = "",
        use_encoder_cache_features: bool = False,
        encoder_cache_match_info_producer_name: str = "",
        sampling_mean: float = 1000.0,
        max_decode_token_samples_for_prediction: int = 0,
    ) -> None:
        self._predictor = LatencyPredictor(
            buffer=slo_buffer_factor,
            ttl_s=context_ttl / 1e9,
            streaming=streaming_mode,
            role_label=endpoint_role_label,
            predicting=predict_in_produce,
        )
        self.warnings = _ignored(use_encoder_cache_features)

    def __call__(
        self, request: Request, endpoints: Endpoints, uncached_tokens: Column
    ) -> tuple[Column, Column, Column, Prediction]:
        return self._predictor.predict(request, endpoints, uncached_tokens)

    def picked(self, request: Request, decision: Decision) -> None:
        for made in decision.signals.values():
            if isinstance(made, Prediction) and made.maker is self._predictor:
                self._predictor.remember(request, decision, made)
                if made.state != "ready":
                    decision.notes.append(_note(made))

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        self._predictor.learn(request, outcome)

    def adopt(self, before: object) -> None:
        """Go on with what was learned, and learn from the requests under way."""
        if isinstance(before, PredictedLatencyProducer):
            self._predictor.adopt(before._predictor)

    def state(self) -> dict[str, object]:
        return self._predictor.state()


def _note(made: Prediction) -> str:
    """What a decision says where latencies were not predicted."""
    why = {
        "cold": f"it has learned from {made.seen} answers, which is too few",
        "wrong": "it was wrong by more than three times in the mean lately",
        "off": "predictInProduce is false",
    }
    return f"no latency predicted: the model is {made.state}, {why[made.state]}; latency-scorer goes by load"


def _ignored(encoder: bool) -> tuple[str, ...]:
    """What is accepted and has no effect."""
    said = []
    variables = [name for name in SERVICE_VARIABLES if name in os.environ]
    if variables:
        said.append(f"{', '.join(variables)}: ignored; latency is predicted in process, no service is asked")
    if encoder:
        said.append("useEncoderCacheFeatures is ignored: nothing tells what the encoders have cached")
    return tuple(said)
