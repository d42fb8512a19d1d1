"""predicted-latency-producer: time to the first token and time per token at each endpoint, predicted in process.

Two linear models, of waiting and running requests, KV usage, tokens in flight and this request's uncached tokens, are
learned from the requests that finish (`scorers/latency_model.py`). No service is asked.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from epp import Column, Decision, Endpoint, Endpoints, Outcome, Request, column, signal
from scorers.latency_model import Latency, Weights

FEATURES = ("constant", "uncached_tokens", "inflight_tokens", "waiting", "running", "kv_usage")
CONTEXT_TTL_NS = 300_000_000_000
SERVICE_VARIABLES = (
    *("TRAINING_SERVER_URL", "PREDICTION_SERVER_URL", "LATENCY_MAX_SAMPLE_SIZE", "LATENCY_FLUSH_INTERVAL_SEC"),
    *("LATENCY_METRICS_INTERVAL_SEC", "LATENCY_HTTP_TIMEOUT_SEC", "LATENCY_MAX_BULK_SIZE"),
    *("LATENCY_COALESCE_WINDOW_MS", "LATENCY_MAX_COALESCED_ROWS", "LATENCY_MAX_CONCURRENT_DISPATCHES"),
    "LATENCY_USE_NATIVE_XGBOOST",
)
"""Of the llm-d router's client for prediction services."""
SETTLED = 1000
"""Answers after which a model needs no more than every other one."""
SWEEPS = 10
"""How often in `context_ttl` it is looked for requests that are older."""
PREFILL = frozenset({"prefill"})
Features = npt.NDArray[np.float64]
"""Shape (6, n)."""


class Prediction(Struct, frozen=True):
    """What one request's prediction was made from, until the pick."""

    state: str = "cold"
    """ready, cold (too few answers seen), wrong (predictions were far off) or off."""
    seen: int = 0
    """Answers learned from."""
    maker: Any = None  # the producer: each one learns only from what it said itself
    features: Features | None = None
    predicted_ms: npt.NDArray[np.float64] | None = None
    """Times to the first token and per token, shape (2, n), whether or not they are told."""


class Sent(Struct):
    """A request under way: where it went and what was said of it."""

    at: float
    first_key: str
    first: Weights
    first_s: float
    key: str
    each: Weights
    each_s: float
    slo_tpot_ms: float


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
        self._buffer = slo_buffer_factor
        self._ttl_s = context_ttl / 1e9
        self._streaming = streaming_mode
        self._role_label = endpoint_role_label
        self._predicting = predict_in_produce
        self._streamed, self._whole, self._each = [Latency(len(FEATURES)) for _ in range(3)]
        self._sent: dict[Request, Sent] = {}
        self._sweep_at = 0.0
        self._turn = False
        self._records: Sequence[Endpoint] = ()
        self._keys: list[str] = []
        """Of the table's rows."""
        self._nothing: Column = np.zeros(0)
        self._learned: dict[bool, tuple[Features, Features]] = {}
        """For streamed requests and others: coefficients in milliseconds, shape (2, 6), and factors, shape (2, n)."""
        self._slos: dict[str, list[float]] = {}
        """TPOT SLOs of the requests under way at each endpoint; kept in streaming mode only."""
        self.warnings = _ignored(use_encoder_cache_features)

    def __call__(
        self, request: Request, endpoints: Endpoints, uncached_tokens: Column
    ) -> tuple[Column, Column, Column, Prediction]:
        n = len(endpoints)
        features = np.empty((len(FEATURES), n))
        features[0] = 1.0
        features[1] = uncached_tokens
        column_of = endpoints.column
        features[2] = column_of("inflight_tokens")
        features[3] = column_of("waiting")
        features[4] = column_of("running")
        features[5] = column_of("kv_usage")
        if endpoints.records is not self._records:
            self._follow(endpoints.records)
        coefficients, factors = self._learned.get(request.stream) or self._taken_up(request.stream)
        told = coefficients @ features
        told *= factors
        first = self._first(request.stream)
        state = self._state(first)
        made = Prediction(state, first.seen, self, features, told)
        if state != "ready":
            nothing = self._nothing
            return nothing, nothing, nothing, made
        return told[0], told[1], self._headroom(request, endpoints, told[1]), made

    def picked(self, request: Request, decision: Decision) -> None:
        for made in decision.signals.values():
            if isinstance(made, Prediction) and made.maker is self:
                self._remember(request, decision, made)
                if made.state != "ready":
                    decision.notes.append(_note(made))

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        sent = self._sent.pop(request, None)
        if sent is None:
            return
        if sent.slo_tpot_ms:
            self._slo_ended(sent)
        if outcome.cause != "natural" or outcome.failure or not 0 < outcome.status < 400:
            return
        if outcome.ttft_s is None or outcome.streamed != request.stream:
            return
        # What the request spent waiting for its decision is not the engine's time.
        first_s = outcome.ttft_s - (sent.at - request.received_at)
        first, each = self._first(request.stream), self._each
        tokens = outcome.usage.completion_tokens if outcome.usage else outcome.pieces
        each_s = (outcome.duration_s - outcome.ttft_s) / (tokens - 1) if outcome.streamed and tokens > 1 else 0.0
        # Once much is known an answer teaches one of the two, in turn, which is half the work.
        both = min(first.seen, each.seen) < SETTLED
        self._turn = not self._turn
        learned = False
        if both or self._turn or not each_s:
            learned = first.observe(sent.first_key, sent.first, first_s, sent.first_s)
        if each_s and (both or not self._turn):
            learned |= each.observe(sent.key, sent.each, each_s, sent.each_s)
        if learned:
            self._learned.clear()

    def adopt(self, before: object) -> None:
        """Go on with what was learned, and learn from the requests under way."""
        if isinstance(before, PredictedLatencyProducer):
            self._streamed, self._whole, self._each = before._streamed, before._whole, before._each
            self._sent = before._sent

    def state(self) -> dict[str, object]:
        models = {"ttft": self._streamed, "wholeResponse": self._whole, "tpot": self._each}
        told: dict[str, object] = {
            name: {
                "state": model.state,
                "seen": model.seen,
                "error": round(model.error, 4),
                "seconds": dict(zip(FEATURES, model.weights.tolist(), strict=True)),
            }
            for name, model in models.items()
        }
        return {**told, "underWay": len(self._sent)}

    def _first(self, stream: bool) -> Latency:
        """The first byte of a response that is not streamed comes at its end: a time of another kind."""
        return self._streamed if stream else self._whole

    def _state(self, first: Latency) -> str:
        if not self._predicting:
            return "off"
        # The TPOT counts only where its SLO does.
        return self._each.state if self._streaming and first.ready else first.state

    def _follow(self, records: Sequence[Endpoint]) -> None:
        """The endpoints have changed: what was learned of those that are gone goes."""
        self._records = records
        self._keys = [record.key for record in records]
        self._learned.clear()
        there = set(self._keys)
        for model in (self._streamed, self._whole, self._each):
            model.keep(there)
        self._nothing = np.zeros(len(records))

    def _taken_up(self, stream: bool) -> tuple[Features, Features]:
        models = (self._first(stream), self._each)
        coefficients = np.array([model.weights for model in models]) * 1e3
        found = self._learned[stream] = (coefficients, np.array([model.factors(self._keys) for model in models]))
        return found

    def _headroom(self, request: Request, endpoints: Endpoints, tpot_ms: Column) -> Column:
        """Milliseconds a token between what the request, and those under way there, want and what is predicted."""
        if not self._streaming:
            return self._nothing
        headroom: Column = (request.slo_tpot_ms or 0.0) * self._buffer - tpot_ms
        for row, key in enumerate(self._keys) if self._slos else ():
            slos = self._slos.get(key)
            if slos:
                headroom[row] = min(headroom[row], min(slos) * self._buffer - tpot_ms[row])
        if self._role_label:
            headroom[endpoints.label_in(self._role_label, PREFILL)] = 0.0
        return headroom

    def _remember(self, request: Request, decision: Decision, made: Prediction) -> None:
        if made.features is None or made.predicted_ms is None:
            return
        run = decision.run
        prefill = decision.runs.get("prefill", run)
        if not run.picked or not prefill.picked:
            return
        row, first_row = run.picked_rows[0], prefill.picked_rows[0]
        slo = (request.slo_tpot_ms or 0.0) if self._streaming else 0.0
        if decision.decided_at > self._sweep_at:
            self._drop_old(decision.decided_at)
        features = made.features[:, row].copy()
        self._sent[request] = Sent(
            decision.decided_at,
            prefill.picked[0].key,
            features if first_row == row else made.features[:, first_row].copy(),
            made.predicted_ms.item(0, first_row) / 1e3,
            run.picked[0].key,
            features,
            made.predicted_ms.item(1, row) / 1e3,
            slo,
        )
        if slo:
            self._slos.setdefault(run.picked[0].key, []).append(slo)

    def _drop_old(self, now: float) -> None:
        """Of a request that lasts longer than that nothing is learned."""
        for request in [request for request, sent in self._sent.items() if now - sent.at > self._ttl_s]:
            self._slo_ended(self._sent.pop(request))
        self._sweep_at = now + self._ttl_s / SWEEPS

    def _slo_ended(self, sent: Sent) -> None:
        slos = self._slos.get(sent.key)
        if sent.slo_tpot_ms and slos and sent.slo_tpot_ms in slos:
            slos.remove(sent.slo_tpot_ms)
            if not slos:
                del self._slos[sent.key]


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
