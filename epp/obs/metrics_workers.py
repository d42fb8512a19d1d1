"""Metrics of the processes of `--workers N`; there only with N > 1."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import CollectorRegistry

from epp.obs.metrics import Metrics
from epp.obs.series import Families, Spec

WORKER = ("worker",)
WORKERS = (
    Spec("worker_starts_total", "counter", WORKER, "How often a process was started: more than once, it had died."),
    Spec("worker_cpu_seconds_total", "counter", WORKER, "CPU time of an edge since it was started last."),
    Spec("worker_resident_memory_bytes", "gauge", WORKER, "Resident memory of an edge."),
    Spec("worker_connections", "gauge", WORKER, "Connections of an edge."),
    Spec("worker_streams", "gauge", WORKER, "ext_proc streams open at an edge."),
    Spec("worker_undecided_total", "counter", WORKER, "Requests answered with 503 as no decider was there."),
)


class Tally(Protocol):
    """How an edge stands."""

    lags: list[float]
    undecided: int
    connections: int
    streams: int
    cpu_s: float
    resident_bytes: int


class WorkerMetrics:
    """Hears of the processes."""

    def __init__(self, board: Metrics, registry: CollectorRegistry) -> None:
        self._board = board
        self._families = Families(WORKERS)
        registry.register(self._families)

    def started(self, worker: str, restarts: int) -> None:
        """It is there, started `restarts` times before."""
        self._families.cells("worker_starts_total").set((worker,), restarts + 1.0)

    def tallied(self, worker: str, tally: Tally) -> None:
        cells, labels = self._families.cells, (worker,)
        for lag_s in tally.lags:
            self._board.lagged(lag_s)
        cells("worker_cpu_seconds_total").set(labels, tally.cpu_s)
        cells("worker_resident_memory_bytes").set(labels, float(tally.resident_bytes))
        cells("worker_connections").set(labels, float(tally.connections))
        cells("worker_streams").set(labels, float(tally.streams))
        cells("worker_undecided_total").add(labels, float(tally.undecided))
