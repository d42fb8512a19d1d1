"""Times predicted at each endpoint: what predicted-latency-producer does each time, without its settings.

A module of its own since a compiled one keeps no annotations, by which settings are read.
"""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from epp import Column, Decision, Endpoint, Endpoints, Outcome, Request
from scorers.latency_model import Latency, Weights

FEATURES: Final = ("constant", "uncached_tokens", "inflight_tokens", "waiting", "running", "kv_usage")
SETTLED: Final = 1000
"""Answers after which a model needs no more than every other one."""
SWEEPS: Final = 10
"""How often in the time that requests are remembered it is looked for older ones."""
PREFILL: Final = frozenset({"prefill"})


@final
class Prediction:
    """What one request's prediction was made from, until the pick."""

    __slots__ = ("features", "maker", "predicted_ms", "seen", "state")

    def __init__(
        self,
        state: str = "cold",
        seen: int = 0,
        maker: LatencyPredictor | None = None,
        features: npt.NDArray[Any] | None = None,
        predicted_ms: npt.NDArray[Any] | None = None,
    ) -> None:
        self.state = state
        """ready, cold (too few answers seen), wrong (predictions were far off) or off."""
        self.seen = seen
        """Answers learned from."""
        self.maker = maker
        """Each one learns only from what it said itself."""
        self.features = features
        """Shape (6, n)."""
        self.predicted_ms = predicted_ms
        """Times to the first token and per token, shape (2, n), whether or not they are told."""


@final
class Sent:
    """A request under way: where it went and what was said of it."""

    __slots__ = ("at", "each", "each_s", "first", "first_key", "first_s", "key", "slo_tpot_ms")

    def __init__(
        self,
        *,
        at: float,
        first_key: str,
        first: Weights,
        first_s: float,
        key: str,
        each: Weights,
        each_s: float,
        slo_tpot_ms: float,
    ) -> None:
        self.at = at
        self.first_key = first_key
        self.first = first
        self.first_s = first_s
        self.key = key
        self.each = each
        self.each_s = each_s
        self.slo_tpot_ms = slo_tpot_ms


@final
class LatencyPredictor:
    """Models of the time to the first token and the time per token, and the requests that will teach them more.

    `streaming`: the headroom of the TPOT is told, and the model of it counts for whether it is ready. `role_label`
    names those that only prefill, "" = nobody. `predicting` False: learn, and tell nothing.
    """

    def __init__(self, *, buffer: float, ttl_s: float, streaming: bool, role_label: str, predicting: bool) -> None:
        self._buffer = buffer
        self._ttl_s = ttl_s
        self._streaming = streaming
        self._role_label = role_label
        self._predicting = predicting
        self._streamed = Latency(len(FEATURES))
        self._whole = Latency(len(FEATURES))
        self._each = Latency(len(FEATURES))
        self._sent: dict[Request, Sent] = {}
        self._sweep_at = 0.0
        self._turn = False
        self._records: tuple[Endpoint, ...] = ()
        self._keys: list[str] = []
        """Of the table's rows."""
        self._nothing: Column = np.zeros(0)
        self._learned: dict[bool, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {}
        """For streamed requests and others: coefficients in milliseconds, shape (2, 6), and factors, shape (2, n)."""
        self._slos: dict[str, list[float]] = {}
        """TPOT SLOs of the requests under way at each endpoint; kept in streaming mode only."""

    def predict(
        self, request: Request, endpoints: Endpoints, uncached_tokens: Column
    ) -> tuple[Column, Column, Column, Prediction]:
        """Milliseconds to the first token, per token, and of headroom at each endpoint; zeros where nothing is told."""
        records = endpoints.records
        features = np.empty((len(FEATURES), len(records)))
        features[0] = 1.0
        features[1] = uncached_tokens
        features[2] = endpoints.column("inflight_tokens")
        features[3] = endpoints.column("waiting")
        features[4] = endpoints.column("running")
        features[5] = endpoints.column("kv_usage")
        if records is not self._records:
            self._follow(records)
        known = self._learned.get(request.stream)
        if known is None:
            known = self._taken_up(request.stream)
        told = known[0] @ features
        told *= known[1]
        first = self._first(request.stream)
        state = self._state(first)
        made = Prediction(state, first.seen, self, features, told)
        if state != "ready":
            nothing = self._nothing
            return nothing, nothing, nothing, made
        each = told[1]
        return told[0], each, self._headroom(request, endpoints, each), made

    def remember(self, request: Request, decision: Decision, made: Prediction) -> None:
        """It goes where `decision` says; its answer will be compared with what was `made` of it."""
        features, predicted_ms = made.features, made.predicted_ms
        if features is None or predicted_ms is None:
            return
        run = decision.run
        prefill = decision.runs.get("prefill", run)
        if not run.picked or not prefill.picked:
            return
        row, first_row, key = run.picked_rows[0], prefill.picked_rows[0], run.picked[0].key
        slo = (request.slo_tpot_ms or 0.0) if self._streaming else 0.0
        if decision.decided_at > self._sweep_at:
            self._drop_old(decision.decided_at)
        each = features[:, row].copy()
        self._sent[request] = Sent(
            at=decision.decided_at,
            first_key=prefill.picked[0].key,
            first=each if first_row == row else features[:, first_row].copy(),
            first_s=predicted_ms.item(0, first_row) / 1e3,
            key=key,
            each=each,
            each_s=predicted_ms.item(1, row) / 1e3,
            slo_tpot_ms=slo,
        )
        if slo:
            self._slos.setdefault(key, []).append(slo)

    def learn(self, request: Request, outcome: Outcome) -> None:
        """Its answer has ended."""
        sent = self._sent.pop(request, None)
        if sent is None:
            return
        if sent.slo_tpot_ms:
            self._slo_ended(sent)
        if outcome.cause != "natural" or outcome.failure or not 0 < outcome.status < 400:
            return
        ttft_s = outcome.ttft_s
        if ttft_s is None or outcome.streamed != request.stream:
            return
        tokens = outcome.usage.completion_tokens if outcome.usage else outcome.pieces
        each_s = (outcome.duration_s - ttft_s) / (tokens - 1) if outcome.streamed and tokens > 1 else 0.0
        # What the request spent waiting for its decision is not the engine's time.
        self._teach(sent, self._first(request.stream), ttft_s - (sent.at - request.received_at), each_s)

    def _teach(self, sent: Sent, first: Latency, first_s: float, each_s: float) -> None:
        # Once much is known an answer teaches one of the two, in turn, which is half the work.
        both = first.seen < SETTLED or self._each.seen < SETTLED
        self._turn = not self._turn
        learned = False
        if both or self._turn or not each_s:
            learned = first.observe(sent.first_key, sent.first, first_s, sent.first_s)
        if each_s and (both or not self._turn) and self._each.observe(sent.key, sent.each, each_s, sent.each_s):
            learned = True
        if learned:
            self._learned.clear()

    def adopt(self, before: LatencyPredictor) -> None:
        """Go on with what was learned, and learn from the requests under way."""
        self._streamed, self._whole, self._each = before._streamed, before._whole, before._each
        self._sent = before._sent

    def state(self) -> dict[str, object]:
        """What the models are, for people."""
        models = {"ttft": self._streamed, "wholeResponse": self._whole, "tpot": self._each}
        told: dict[str, object] = {}
        for name, model in models.items():
            told[name] = {
                "state": model.state,
                "seen": model.seen,
                "error": round(model.error, 4),
                "seconds": dict(zip(FEATURES, model.weights.tolist(), strict=True)),
            }
        told["underWay"] = len(self._sent)
        return told

    def _first(self, stream: bool) -> Latency:
        """The first byte of a response that is not streamed comes at its end: a time of another kind."""
        return self._streamed if stream else self._whole

    def _state(self, first: Latency) -> str:
        if not self._predicting:
            return "off"
        # The TPOT counts only where its SLO does.
        return self._each.state if self._streaming and first.ready else first.state

    def _follow(self, records: tuple[Endpoint, ...]) -> None:
        """The endpoints have changed: what was learned of those that are gone goes."""
        self._records = records
        self._keys = [record.key for record in records]
        self._learned.clear()
        there = set(self._keys)
        for model in (self._streamed, self._whole, self._each):
            model.keep(there)
        self._nothing = np.zeros(len(records))

    def _taken_up(self, stream: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        models = (self._first(stream), self._each)
        coefficients = np.array([model.weights for model in models]) * 1e3
        found = (coefficients, np.array([model.factors(self._keys) for model in models]))
        self._learned[stream] = found
        return found

    def _headroom(self, request: Request, endpoints: Endpoints, tpot_ms: Column) -> Column:
        """Milliseconds a token between what the request, and those under way there, want and what is predicted."""
        if not self._streaming:
            return self._nothing
        headroom: Column = (request.slo_tpot_ms or 0.0) * self._buffer - tpot_ms
        if self._slos:
            for row, key in enumerate(self._keys):
                slos = self._slos.get(key)
                if slos:
                    headroom[row] = min(headroom[row], min(slos) * self._buffer - tpot_ms[row])
        if self._role_label:
            headroom[endpoints.label_in(self._role_label, PREFILL)] = 0.0
        return headroom

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
