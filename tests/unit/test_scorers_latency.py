"""Predicted latencies: what the model learns and never does, when it keeps silent, what the producer tells."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp import Column, Decision, Endpoints, Outcome, Request, Usage
from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.latency_model import BLOCK, READY_AFTER, Latency, nonnegative
from scorers.latency_predictor import Prediction
from scorers.predicted_latency import SERVICE_VARIABLES, PredictedLatencyProducer
from tests.scorer_kit import build, decided

TTL_NS = 10_000_000_000


def taught(model: Latency, observations: int, seed: int = 0, slow: float = 1.0) -> Latency:
    """0.05 s, 0.1 s a unit of load at endpoints a and b; b is `slow` times slower; a tenth of noise."""
    rng = np.random.default_rng(seed)
    for number in range(observations):
        features = np.array([1.0, rng.uniform(0, 5)])
        key = "ab"[number % 2]
        seconds = (0.05 + 0.1 * features[1]) * (slow if key == "b" else 1.0) * rng.uniform(0.9, 1.1)
        model.observe(key, features, seconds, float(features @ model.weights) * model.factor(key))
    return model


def test_a_model_learns_what_times_depend_on() -> None:
    model = taught(Latency(2), 1000)
    assert model.weights * model.factor("a") == pytest.approx([0.05, 0.1], rel=0.05)


def test_a_model_learns_that_one_endpoint_is_slower() -> None:
    model = taught(Latency(2), 2000, slow=3.0)
    assert model.factor("b") / model.factor("a") == pytest.approx(3.0, rel=0.2)


def test_an_endpoint_that_was_never_seen_is_like_the_others() -> None:
    model = taught(Latency(2), 500)
    assert (model.ready, model.factor("new")) == (True, 1.0)


def test_a_model_is_cold_until_it_has_seen_enough() -> None:
    assert taught(Latency(2), READY_AFTER - 1).state == "cold"
    assert taught(Latency(2), 2 * READY_AFTER).state == "ready"


def test_a_model_forgets_how_fast_engines_once_were() -> None:
    model = taught(Latency(1), 0)
    for seconds in [0.1] * 3000 + [0.4] * 5000:
        model.observe("a", np.ones(1), seconds, 0.0)
    assert float(model.weights[0]) * model.factor("a") == pytest.approx(0.4, rel=0.1)


def test_a_single_absurd_time_moves_little() -> None:
    model = taught(Latency(2), 1000)
    before = model.weights.copy()
    for number in range(BLOCK):
        model.observe("a", np.array([1.0, 2.0]), 1e9 if number == 0 else 0.25, 0.0)
    assert model.weights == pytest.approx(before, rel=0.25, abs=0.02)


def test_a_model_that_is_far_off_keeps_silent_and_comes_back_when_it_is_right() -> None:
    model = taught(Latency(2), 500)
    for _ in range(200):
        model.observe("a", np.array([1.0, 1.0]), 0.15, 1.5)
    assert (model.state, model.ready) == ("wrong", False)
    for _ in range(200):
        model.observe("a", np.array([1.0, 1.0]), 0.15, 0.16)
    assert model.state == "ready"


TIMES = st.floats(allow_nan=False, allow_infinity=False)
LOADS = st.floats(0.0, 1e6)


@given(st.lists(st.tuples(st.sampled_from("abc"), LOADS, TIMES), max_size=300), LOADS)
@settings(max_examples=40)
def test_whatever_it_sees_it_predicts_finite_times_that_are_not_negative(
    seen: list[tuple[str, float, float]], load: float
) -> None:
    model = Latency(2)
    for key, x, seconds in seen:
        model.observe(key, np.array([1.0, x]), seconds, 0.0)
    for key in "abcd":
        predicted = float(np.array([1.0, load]) @ model.weights) * model.factor(key)
        assert np.isfinite(predicted)
        assert predicted >= 0.0
        assert 1 / 8 <= model.factor(key) <= 8.0


def test_more_load_never_predicts_a_shorter_time() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    falling = np.array([3.0, 2.0, 1.0])
    assert nonnegative(rows.T @ rows, rows.T @ falling) == pytest.approx([2.0, 0.0], rel=1e-4)


@dataclass
class World:
    """Three endpoints of which the second is busy, and a producer."""

    producer: PredictedLatencyProducer
    made: Endpoints = field(
        default_factory=lambda: endpoints(waiting=[0, 8, 0], running=[1, 20, 1], kv_usage=[0, 1, 0])
    )
    uncached: Column = field(default_factory=lambda: np.array([100.0, 100.0, 2000.0]))

    def measure(self, asked: Request) -> tuple[Column, Column, Column, Prediction]:
        return self.producer(asked, self.made, self.uncached)

    def pick(self, asked: Request, row: int, at: float = 0.0) -> Decision:
        prediction = self.measure(asked)[3]
        decision = decided(asked, self.made, {"default": f"e{row}"}, signals={"p": prediction}, now=at)
        self.producer.picked(asked, decision)
        return decision

    def answer(self, row: int, ttft_s: float, each_s: float, **fields: object) -> None:
        asked = request(stream=True)
        decision = self.pick(asked, row)
        told = {"usage": Usage(completion_tokens=11), "status": 200, "cause": "natural", "streamed": True, **fields}
        outcome = Outcome(ttft_s=ttft_s, duration_s=ttft_s + 10 * each_s, **told)  # type: ignore[arg-type]
        self.producer.finished(asked, decision, outcome)

    def learn(self, rounds: int = 100) -> None:
        for _ in range(rounds):
            self.answer(0, 0.05, 0.02)
            self.answer(1, 0.85, 0.04)
            self.answer(2, 0.24, 0.02)


def world(**parameters: object) -> World:
    return World(build(PredictedLatencyProducer, **parameters))


def test_before_it_has_learned_it_predicts_nothing_and_the_decision_says_so() -> None:
    seen = world()
    ttft, tpot, headroom, _ = seen.measure(request(stream=True))
    assert [list(column) for column in (ttft, tpot, headroom)] == [[0, 0, 0]] * 3
    [note] = seen.pick(request(stream=True), 0).notes
    assert "the model is cold" in note


def test_it_predicts_what_it_has_seen() -> None:
    seen = world()
    seen.learn()
    ttft, tpot, _, _ = seen.measure(request(stream=True))
    assert ttft == pytest.approx([50, 850, 240], rel=0.2)
    assert tpot == pytest.approx([20, 40, 20], rel=0.2)
    assert seen.pick(request(stream=True), 0).notes == []


def test_a_stream_without_usage_counts_its_events_as_tokens() -> None:
    seen = world()
    for _ in range(50):
        seen.answer(0, 0.05, 0.02, usage=None, pieces=11)
    assert seen.measure(request(stream=True))[1].item(0) == pytest.approx(20, rel=0.05)


def test_whole_responses_are_another_kind_of_time_than_first_tokens() -> None:
    seen = world()
    seen.learn()
    ttft, _, _, prediction = seen.measure(request(stream=False))
    assert (list(ttft), prediction.state) == ([0, 0, 0], "cold")


@pytest.mark.parametrize(
    "fields",
    [{"status": 500}, {"cause": "client-disconnect"}, {"failure": "connect"}, {"streamed": False}],
    ids=str,
)
def test_nothing_is_learned_from_an_answer_that_failed(fields: dict[str, object]) -> None:
    seen = world()
    for _ in range(50):
        seen.answer(0, 0.05, 0.02, **fields)
    assert seen.measure(request(stream=True))[3].seen == 0


def test_waiting_for_the_decision_is_not_the_engines_time() -> None:
    seen = world()
    for _ in range(50):
        asked = request(stream=True, received_at=100.0)
        decision = seen.pick(asked, 0, at=107.0)
        outcome = Outcome(usage=None, status=200, cause="natural", ttft_s=7.1, duration_s=8.0, streamed=True)
        seen.producer.finished(asked, decision, outcome)
    assert seen.measure(request(stream=True))[0].item(0) == pytest.approx(100, rel=0.01)


def test_without_streaming_mode_the_tpot_is_never_short() -> None:
    seen = world()
    seen.learn()
    assert list(seen.measure(request(stream=True, slo_tpot_ms=1.0))[2]) == [0, 0, 0]


def test_in_streaming_mode_the_headroom_is_the_buffered_slo_less_the_prediction() -> None:
    seen = world(streamingMode=True, sloBufferFactor=2)
    seen.learn()
    _, tpot, headroom, _ = seen.measure(request(stream=True, slo_tpot_ms=30.0))
    assert headroom == pytest.approx(60.0 - tpot)


def test_the_strictest_request_under_way_bounds_the_headroom_there_until_it_ends() -> None:
    seen = world(streamingMode=True)
    seen.learn()
    strict = request(stream=True, slo_tpot_ms=10.0)
    decision = seen.pick(strict, 1)
    _, tpot, headroom, _ = seen.measure(request(stream=True, slo_tpot_ms=30.0))
    assert headroom == pytest.approx(np.array([30.0, 10.0, 30.0]) - tpot)
    ended = Outcome(usage=None, status=0, cause="client-disconnect", ttft_s=None, duration_s=1.0)
    seen.producer.finished(strict, decision, ended)
    assert seen.measure(request(stream=True, slo_tpot_ms=30.0))[2] == pytest.approx(30.0 - tpot)


def test_a_prefill_endpoint_has_no_tpot_to_keep() -> None:
    seen = world(streamingMode=True, endpointRoleLabel="role")
    seen.made = endpoints(waiting=[0, 8, 0], labels=[{"role": "prefill"}, {}, {"role": "decode"}])
    seen.learn()
    assert (seen.measure(request(stream=True))[2] == 0.0).tolist() == [True, False, False]


def test_nothing_is_learned_of_a_request_that_outlasts_the_context_ttl() -> None:
    seen = world(contextTTL=TTL_NS)
    asked = request(stream=True)
    decision = seen.pick(asked, 0, at=0.0)
    seen.pick(request(stream=True), 0, at=TTL_NS / 1e9 + 1.0)
    outcome = Outcome(usage=None, status=200, cause="natural", ttft_s=0.1, duration_s=20.0, streamed=True)
    seen.producer.finished(asked, decision, outcome)
    assert seen.producer.state()["underWay"] == 1


def test_predict_in_produce_false_predicts_nothing_and_learns_on() -> None:
    seen = world(predictInProduce=False)
    seen.learn()
    assert seen.measure(request(stream=True))[0].tolist() == [0, 0, 0]
    assert seen.measure(request(stream=True))[3].seen > READY_AFTER


def test_a_reload_goes_on_with_what_was_learned() -> None:
    seen, after = world(), world(sloBufferFactor=1.5)
    seen.learn()
    after.producer.adopt(seen.producer)
    assert (after.measure(request(stream=True))[0] > 0.0).all()


def test_variables_of_the_routers_prediction_services_are_named_and_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVICE_VARIABLES:
        monkeypatch.delitem(os.environ, name, raising=False)
    assert build(PredictedLatencyProducer).warnings == ()
    monkeypatch.setitem(os.environ, "PREDICTION_SERVER_URL", "http://localhost:8001")
    [warning] = build(PredictedLatencyProducer, samplingMean=10).warnings
    assert warning.startswith("PREDICTION_SERVER_URL: ignored")


def test_a_buffer_factor_of_0_is_refused() -> None:
    with pytest.raises(PluginError, match="sloBufferFactor"):
        build(PredictedLatencyProducer, sloBufferFactor=0)
