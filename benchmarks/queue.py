"""What the queue costs: a dispatch, a request that must wait, one that goes at once, one that is cancelled.

`python -m benchmarks.queue` prints a table and writes results/queue.json. Queues of 10, 1,000 and 100,000 requests are
kept at their length while requests go and come, over at most 1,000 flows, for each fairness policy. The saturation is a
number that is handed in: what a detector costs is not counted. CPU time; beside it the CPU time a request costs a bare
grpc.aio echo in the same run, as a measure of the machine. Needs h2load (Debian package nghttp2-client).
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write
from benchmarks.server import echo, loaded, messages
from epp.flow.control import FlowControl
from epp.flow.settings import BandRules, FlowRules
from epp.flow.ticket import Ticket
from epp.plugins import Catalogue, Plugin
from epp.types import Request

LENGTHS = (10, 1_000, 100_000)
FLOWS = 1_000
ROUNDS = 5
DISPATCHES = 4_000
"""In each round, in batches that leave at least half of the queue."""
FAIRNESS = ("global-strict-fairness-policy", "round-robin-fairness-policy", "program-aware-fairness")
BUDGET_US, ON_ECHO_MS = 25.0, 0.53
"""A dispatch may cost so much where the echo costs that."""


class Unheard:
    """An observer that hears nothing, and a timer that never rings."""

    def _nothing(self, *_: object) -> None:
        pass

    queued = left = cycle = evicting = evicted = failed = _nothing

    def cancel(self) -> None:
        pass


class Queue:
    """A queue before a pool with `free` places."""

    def __init__(self, fairness: str, ordering: str = "fcfs-ordering-policy") -> None:
        self.free = 0
        self._number = 0
        catalogue = Catalogue.installed()

        def plugin(name: str) -> Plugin:
            return catalogue.build(name, name, {}, "benchmark")

        limitless = BandRules(plugin(fairness), plugin(ordering), max_requests=10**9, max_bytes=10**15)
        self.flow = FlowControl(
            FlowRules(plugin("static-usage-limit-policy"), limitless),
            now=time.monotonic,
            saturation=lambda: 0.0 if self.free > 0 else 1.0,
            pool_size=lambda: 1,
            later=lambda _, __: Unheard(),
            observer=Unheard(),
        )

    def requests(self, count: int) -> list[Request]:
        """Of all flows in a shuffled order."""
        numbers = range(self._number, self._number + count)
        self._number += count
        return [Request(fairness_id=f"flow-{number * 7919 % FLOWS:04}") for number in numbers]

    def enter(self, requests: Sequence[Request]) -> list[Ticket]:
        enter, taken, refused = self.flow.enter, self._taken, self._refused
        return [enter(request, 2_000, taken, refused) for request in requests]

    def dispatch(self, count: int) -> None:
        """So many places become free at once; it is told until they are taken, as the event loop would."""
        self.free = count
        while self.free:
            self.flow.changed()

    def _taken(self) -> None:
        self.free -= 1

    def _refused(self, _: object) -> None:
        raise AssertionError("nobody is refused here")


def cpu_us(call: Callable[[], object]) -> float:
    began = time.thread_time()
    call()
    return (time.thread_time() - began) * 1e6


def steady(queue: Queue, length: int) -> dict[str, float]:
    """A dispatch and an entry at this length: the median of rounds."""
    queue.enter(queue.requests(length))
    batch = min(length // 2, 100)
    rounds: dict[str, list[float]] = {"dispatch_us": [], "enqueue_us": [], "cancel_us": []}
    for _ in range(ROUNDS):
        spent = dict.fromkeys(rounds, 0.0)
        for _ in range(DISPATCHES // batch):
            coming = queue.requests(batch)
            spent["dispatch_us"] += cpu_us(lambda: queue.dispatch(batch))
            spent["enqueue_us"] += cpu_us(lambda coming=coming: queue.enter(coming))
            leaving = queue.enter(queue.requests(batch))
            spent["cancel_us"] += cpu_us(lambda leaving=leaving: [ticket.cancel() for ticket in leaving])
        for name, us in spent.items():
            rounds[name].append(us / (DISPATCHES // batch * batch))
    return {name: float(np.median(found)) for name, found in rounds.items()}


def drained(fairness: str) -> dict[str, float]:
    """The longest queue filled, and emptied on one event."""
    queue, length = Queue(fairness), LENGTHS[-1]
    coming = queue.requests(length)
    filled = cpu_us(lambda: queue.enter(coming)) / length
    return {"enqueue_us": filled, "dispatch_us": cpu_us(lambda: queue.dispatch(length)) / length}


def uncontended(fairness: str) -> float:
    """A request that goes at once and ends: the median of rounds."""
    queue = Queue(fairness)
    queue.free = 1
    flow = queue.flow
    requests = queue.requests(20_000)

    def all_go() -> None:
        for request in requests:
            flow.enter(request, 2_000, queue._taken, queue._refused).ended()

    return float(np.median([cpu_us(all_go) / len(requests) for _ in range(ROUNDS)]))


def measured(fairness: str) -> dict[str, Any]:
    result: dict[str, Any] = {"at_once_us": uncontended(fairness), "emptied_on_one_event": drained(fairness)}
    for length in LENGTHS:
        gc.collect()
        result[str(length)] = steady(Queue(fairness), length)
    return result


def echo_ms() -> float:
    """CPU time of a bare grpc.aio echo per request of four messages."""
    with tempfile.TemporaryDirectory() as name, echo() as floor:
        stream = Path(name) / "stream"
        framed = [b"\0" + len(message).to_bytes(4, "big") + message for message in messages(complete=True)]
        stream.write_bytes(b"".join(framed))
        return float(np.median([loaded(*floor, stream)["cpu_ms_per_request"] for _ in range(3)]))


def main() -> None:
    before = echo_ms()
    policies = {fairness: measured(fairness) for fairness in FAIRNESS}
    floor = (before + echo_ms()) / 2
    budget = BUDGET_US * floor / ON_ECHO_MS
    worst = max(one[str(length)]["dispatch_us"] for one in policies.values() for length in LENGTHS)
    figures = {
        "flows": FLOWS,
        "echo_cpu_ms": floor,
        "budget_us": budget,
        "worst_dispatch_us": worst,
        "within_budget": worst <= budget,
        "policies": policies,
    }
    write("queue", figures)
    print(f"echo {floor:.3f} ms, so a dispatch may cost {budget:.1f} µs; the dearest costs {worst:.1f} µs")
    for fairness, one in policies.items():
        print(f"{fairness}: goes at once {one['at_once_us']:.1f} µs; {one['emptied_on_one_event']}")
        for length in LENGTHS:
            told = "  ".join(f"{name} {us:5.2f}" for name, us in one[str(length)].items())
            print(f"  {length:>7} wait  {told}")


if __name__ == "__main__":
    main()
