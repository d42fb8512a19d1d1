"""Metrics of the queue: who waits, how long, how requests leave, how full the pool is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from epp.obs.series import Families

if TYPE_CHECKING:
    from epp.flow.ticket import Ticket
    from epp.obs.metrics import Metrics


class FlowMetrics:
    """Hears what the queue does (`epp.flow.observe.FlowObserver`). `pool`: value of the label inference_pool."""

    def __init__(self, metrics: Metrics, pool: str, failed: Callable[[str, BaseException], None]) -> None:
        families: Families = metrics.families
        self._metrics = metrics
        self._pool = pool
        self._policy_failed = failed
        self._cells = families.cells
        self._waits = families.histograms("flow_control_request_queue_duration_seconds")
        self._enqueue = families.histograms("flow_control_request_enqueue_duration_seconds")
        self._cycle = families.histograms("flow_control_dispatch_cycle_duration_seconds").at(())
        self._outcomes = families.cells("flow_control_requests_total")
        self._size = families.cells("flow_control_queue_size")
        self._bytes = families.cells("flow_control_queue_bytes")

    def queued(self, ticket: Ticket, took_s: float) -> None:
        labels = self._metrics.flow(ticket.request).labels
        self._enqueue.at((labels[2], labels[3], "NotYetFinalized")).observe(took_s)
        self._change(labels, 1.0, ticket.size)

    def left(self, outcome: str, ticket: Ticket, waited_s: float, was_queued: bool) -> None:
        labels = self._metrics.flow(ticket.request).labels
        fairness_id, priority = labels[2], labels[3]
        self._outcomes.add((outcome, priority, self._pool))
        self._waits.at((fairness_id, priority, outcome, self._pool, labels[0], labels[1])).observe(waited_s)
        if was_queued:
            self._change(labels, -1.0, -ticket.size)

    def cycle(self, took_s: float) -> None:
        self._cycle.observe(took_s)

    def evicting(self, ticket: Ticket, wanted: int, unconfirmed: int) -> None:
        self._cells("flow_control_revocations_issued_total").add((str(ticket.priority), self._pool))
        self._cells("flow_control_reclaim_target").set((self._pool,), wanted)
        self._cells("flow_control_pending_reclaim").set((self._pool,), unconfirmed)

    def evicted(self, ticket: Ticket, took_s: float, confirmed: bool, unconfirmed: int) -> None:
        outcome = "confirmed" if confirmed else "timed_out"
        self._cells("flow_control_revocations_total").add((outcome, self._pool))
        self._cells("flow_control_pending_reclaim").set((self._pool,), unconfirmed)
        self._metrics.families.histograms("flow_control_revocation_confirmation_seconds").at((self._pool,)).observe(
            took_s
        )

    def failed(self, plugin: str, error: BaseException) -> None:
        self._policy_failed(plugin, error)

    def pool(self, saturation: Mapping[str, float], stale: int, detector: str) -> None:
        """How full each stage is, and of how many endpoints the detector knows nothing fresh."""
        cells = self._cells("flow_control_pool_saturation")
        cells.drop(lambda labels, _: labels[1] not in saturation)
        for stage, value in saturation.items():
            cells.set((self._pool, stage), value)
        self._cells("flow_control_stale_endpoints").set((detector,), stale)

    def capacity(self, state: Mapping[str, Any]) -> None:
        """How full the queue is; `state` as FlowControl.state tells it."""
        for name in ("requests", "bytes"):
            most = state[f"max_{name}"]
            if most:
                cells = self._cells(f"flow_control_global_capacity_utilization_{name}")
                cells.set((self._pool,), state[name] / most)
            bands = self._cells(f"flow_control_capacity_utilization_{name}")
            known = {str(band["priority"]): band for band in state["bands"]}
            bands.drop(lambda labels, _, known=known: labels[0] not in known)  # type: ignore[misc]
            for priority, band in known.items():
                bands.set((priority, self._pool), band[name] / band[f"max_{name}"])
        self._size.drop(lambda _, value: value == 0.0)
        self._bytes.drop(lambda labels, value: value == 0.0)

    def _change(self, labels: tuple[str, ...], requests: float, size: int) -> None:
        key = (labels[2], labels[3], self._pool, labels[0], labels[1])
        self._size.add(key, requests)
        self._bytes.add(key, float(size))
