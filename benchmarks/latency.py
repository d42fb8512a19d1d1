"""What predicting latencies costs a request at 100 endpoints, beside a bare grpc.aio echo in the same run.

`predict_us` is everything the producer adds to a request: the signal, the scheduler's check of its columns, the pick
and the end noted, and its share of learning. CPU time of the thread, median of rounds, less what making the same
request and decision costs without it. The bound is 30 µs where the echo costs 0.53 ms, scaled by the echo of the run.
Needs h2load (Debian package nghttp2-client).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.machine import write
from benchmarks.server import echo, loaded, messages
from epp.scheduler import Bound, Context, checked_column
from epp.testing import endpoints, request
from epp.types import Column, Decision, Endpoints, Outcome, Request, Run
from scorers.latency import LatencyScorer
from scorers.latency_predictor import Prediction
from scorers.predicted_latency import PredictedLatencyProducer

SIZES = (10, 100, 1000)
BATCH, ROUNDS = 320, 25
ALLOWED_US, ECHO_MS = 30.0, 0.53


class Stage:
    """A producer that has learned, over `n` endpoints under mixed load, and requests for it."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self.made = endpoints(
            waiting=rng.integers(0, 4, n).tolist(),
            running=rng.integers(0, 40, n).tolist(),
            kv_usage=rng.random(n).tolist(),
            inflight=rng.integers(0, 40, n).tolist(),
            inflight_tokens=(rng.random(n) * 3000).tolist(),
        )
        self.uncached: Column = rng.random(n) * 800
        self.rows = rng.integers(0, n, 4096).tolist()
        self.ttft = (0.03 + 0.05 * self.uncached / 1e3).tolist()
        self.producer = PredictedLatencyProducer(streaming_mode=True)
        self.count = 0
        decision = Decision("x", "m", 0.0, n)
        self.context = Context({"endpoints": self.made}, frozenset(), None, decision, time.perf_counter)
        self.bound = Bound("latency", self.producer, ())
        for _ in range(4000):
            self.predicted()

    def bare(self) -> tuple[Request, Decision, Outcome]:
        """What there is of a request anyway."""
        self.count += 1
        row = self.rows[self.count % len(self.rows)]
        record = self.made.records[row]
        asked = request(stream=True, slo_ttft_ms=100.0, slo_tpot_ms=30.0)
        run = Run("default", self.made.records, picked=(record,), picked_rows=(row,))
        decision = Decision("x", "m", 0.0, len(self.made), "default", {"default": run})
        return asked, decision, Outcome(None, 200, "natural", self.ttft[row], self.ttft[row] + 3.0, True, pieces=101)

    def predicted(self) -> None:
        asked, decision, outcome = self.bare()
        *columns, decision.signals["latency_prediction"] = self.measure(asked)
        for column in columns:
            checked_column(self.context, self.bound, column, 0.0, len(self.made))
        self.producer.picked(asked, decision)
        self.producer.finished(asked, decision, outcome)

    def measure(self, asked: Request) -> tuple[Column, Column, Column, Prediction]:
        return self.producer(asked, self.made, self.uncached)


def batch_us(call: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(BATCH):
        call()
    return (time.thread_time() - began) / BATCH * 1e6


def parts(n: int) -> dict[str, float]:
    """Medians over rounds in which everything is measured in turn."""
    stage = Stage(n)
    asked = request(stream=True, slo_ttft_ms=100.0, slo_tpot_ms=30.0)
    made: Endpoints = stage.made
    ttft, _, headroom, _ = stage.measure(asked)
    scorer, cached = LatencyScorer(), np.zeros(n)

    def score() -> None:
        scorer(asked, made, ttft, cached, 10.0, headroom)

    calls = {"bare": stage.bare, "all": stage.predicted, "signal": lambda: stage.measure(asked), "scorer": score}
    times = {name: [0.0] * ROUNDS for name in calls}
    for at in range(ROUNDS):
        for name, call in calls.items():
            times[name][at] = batch_us(call)
    found = {name: float(np.median(each)) for name, each in times.items()}
    predict = float(np.median(np.array(times["all"]) - np.array(times["bare"])))
    figures = {"predict_us": predict, "signal_us": found["signal"], "latency_scorer_us": found["scorer"]}
    return {name: round(value, 2) for name, value in figures.items()}


def echo_ms() -> float:
    """CPU of a bare grpc.aio server for one stream of four messages."""
    with tempfile.TemporaryDirectory() as folder, echo() as (pid, port):
        stream = Path(folder) / "stream"
        framed = [b"\0" + len(wire).to_bytes(4, "big") + wire for wire in messages(complete=True)]
        stream.write_bytes(b"".join(framed))
        return loaded(pid, port, stream)["cpu_ms_per_request"]


def main() -> None:
    before = echo_ms()
    measured = {str(n): parts(n) for n in SIZES}
    echoed = (before + echo_ms()) / 2
    allowed = ALLOWED_US * echoed / ECHO_MS
    spent = measured["100"]["predict_us"]
    figures = {
        "what": "CPU of latency prediction a request, in µs, by number of endpoints",
        "endpoints": measured,
        "n": BATCH * ROUNDS,
        "echo_ms": round(echoed, 4),
        "allowed_us_at_100": round(allowed, 1),
        "share_of_allowed": round(spent / allowed, 3),
    }
    print(write("latency", figures))
    print(f"{spent:.1f} µs at 100 endpoints; allowed here {allowed:.1f} (echo {echoed:.3f} ms)")
    print(measured)


if __name__ == "__main__":
    main()
