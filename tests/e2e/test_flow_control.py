"""The queue through a real Envoy: who waits is served in the end, the sheddable make room, a shutdown answers all."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from . import envoy
from .bootstrap import Setup
from .chat import ask_all, completion
from .client import Reply
from .envoy import Envoy
from .processes import CONFIG, Picker, endpoints_file, engines, picker, settles

ENGINE = ("--max-num-seqs", "2", "--time-to-first-token", "20ms", "--inter-token-latency", "20ms")
GATE = CONFIG.replace("\nplugins:", "\nfeatureGates: [flowControl]\nplugins:", 1).replace(
    "watchFile: true", "watchFile: true, manifestsPath: MANIFESTS"
)
FEW = """- {type: concurrency-detector, parameters: {maxConcurrency: 2}}
"""
MANIFESTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -1}
"""
BATCH = "x-llm-d-inference-objective: batch"


@contextmanager
def served(folder: Path, workers: int, *, drain: str = "20s", **section: object) -> Iterator[tuple[Picker, Envoy]]:
    """One engine of two seats, a picker that sends it two requests at a time, Envoy."""
    (folder / "manifests.yaml").write_text(MANIFESTS)
    flow = json.dumps({"saturationDetector": {"pluginRef": "concurrency-detector"}, **section})
    config = GATE.replace("MANIFESTS", str(folder / "manifests.yaml")).replace(
        "schedulingProfiles:", f"{FEW}schedulingProfiles:"
    )
    with engines(folder, 1, *ENGINE) as (engine,):
        file = endpoints_file(folder / "endpoints.yaml", [engine.address])
        flags = (f"--workers={workers}", f"--drain-timeout={drain}")
        with (
            picker(folder, file, *flags, config=f"{config}flowControl: {flow}\n") as epp,
            envoy.running(envoy.binary("newest"), Setup(picker_port=epp.grpc_port), folder) as proxy,
        ):
            yield epp, proxy


class Asking(threading.Thread):
    """Requests that are answered while the test goes on."""

    def __init__(self, port: int, *requests: bytes) -> None:
        super().__init__()
        self._port, self._requests = port, list(requests)
        self.replies: list[Reply] = []
        self.start()

    def run(self) -> None:
        self.replies = ask_all(self._port, self._requests)

    def statuses(self) -> list[int]:
        self.join(60)
        return [reply.status for reply in self.replies]


def queue(epp: Picker) -> tuple[int, int]:
    """Requests that wait, and that are in flight."""
    found = json.loads(epp.get("/debug/queue"))["queue"]
    return found["requests"], found["in_flight"]["requests"]


@pytest.mark.parametrize("workers", [1, 2])
def test_who_waits_is_served_in_the_end(tmp_path: Path, workers: int) -> None:
    with served(tmp_path, workers) as (epp, proxy):
        asking = Asking(proxy.port, *[completion(f"number {n}", max_tokens=20) for n in range(8)])
        assert settles((6, 2), lambda: queue(epp)) == (6, 2)
        assert asking.statuses() == [200] * 8
        assert queue(epp) == (0, 0)
        assert epp.metric("llm_d_epp_flow_control_requests_total", outcome="Dispatched") == 8


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_queue_refuses_with_the_reason_and_makes_room_for_the_important(tmp_path: Path, workers: int) -> None:
    with served(tmp_path, workers, maxRequests=2) as (epp, proxy):
        busy = Asking(proxy.port, *[completion(f"busy {n}", max_tokens=100) for n in range(2)])
        assert settles((0, 2), lambda: queue(epp)) == (0, 2)
        batch = Asking(proxy.port, *[completion(f"batch {n}", BATCH, max_tokens=4) for n in range(2)])
        assert settles((2, 2), lambda: queue(epp)) == (2, 2)
        (refused,) = ask_all(proxy.port, [completion("one more", BATCH)])
        assert (refused.status, refused.header("x-llm-d-request-dropped-reason")) == (429, "rejected-saturated")
        (served_all_the_same,) = ask_all(proxy.port, [completion("important", max_tokens=4)])
        assert served_all_the_same.status == 200
        assert sorted(batch.statuses()) == [200, 429]
        pushed = next(reply for reply in batch.replies if reply.status == 429)
        assert pushed.header("x-llm-d-request-dropped-reason") == "evicted-queue-pressure"
        assert busy.statuses() == [200, 200]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sheddable_request_in_flight_ends_for_an_important_one(tmp_path: Path, workers: int) -> None:
    with served(tmp_path, workers, enableEviction=True) as (epp, proxy):
        batch = Asking(proxy.port, *[completion(f"batch {n}", BATCH, max_tokens=400) for n in range(2)])
        assert settles((0, 2), lambda: queue(epp)) == (0, 2)
        (important,) = ask_all(proxy.port, [completion("important", max_tokens=4)])
        assert important.status == 200
        assert sorted(batch.statuses()) == [200, 429]
        evicted = next(reply for reply in batch.replies if reply.status == 429)
        assert evicted.body == b"request evicted by flow control"
        assert epp.metric("llm_d_epp_flow_control_revocations_total", outcome="confirmed") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shutdown_works_the_queue_off(tmp_path: Path, workers: int) -> None:
    with served(tmp_path, workers) as (epp, proxy):
        asking = Asking(proxy.port, *[completion(f"number {n}", max_tokens=20) for n in range(6)])
        assert settles((4, 2), lambda: queue(epp)) == (4, 2)
        epp.child.process.send_signal(signal.SIGTERM)
        assert asking.statuses() == [200] * 6
        assert epp.child.process.wait(30) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_shutdown_does_not_get_to_is_told_so(tmp_path: Path, workers: int) -> None:
    with served(tmp_path, workers, drain="1s") as (epp, proxy):
        asking = Asking(proxy.port, *[completion(f"number {n}", max_tokens=200) for n in range(6)])
        assert settles((4, 2), lambda: queue(epp)) == (4, 2)
        epp.child.process.send_signal(signal.SIGTERM)
        asking.statuses()
        told = [reply.header("x-llm-d-request-dropped-reason") for reply in asking.replies if reply.status == 503]
        assert told.count("rejected-shutting-down") == 4
        assert epp.child.process.wait(30) == 0
