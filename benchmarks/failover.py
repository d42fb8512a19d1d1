"""Fail-over of two pickers behind a real Envoy, under load, with upstream's timings: 15 s, 10 s, 2 s.

`python -m benchmarks.failover [rounds]` measures what clients see when the leader is told to stop, when its pod is
deleted, and when it is killed: behind gateways that send to ready pickers only, as Kubernetes finds them (a kubelet
that probes every 2 s, three failures make unready, a process that is gone is noticed at the next look), and behind an
Envoy that knows every picker, with the settings that matter left out one by one. Six clients send short requests, two
read answers of a second. One round takes about six minutes.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.failover_seen import Seen, told
from benchmarks.machine import write
from tests.e2e import cluster, envoy, gateway
from tests.e2e.bootstrap import Json, Setup, bootstrap
from tests.e2e.cluster import Fleet, Namespace, Server
from tests.e2e.gateway import Kubelet
from tests.e2e.load import Load, load
from tests.e2e.processes import Picker, settles

ROUNDS = 1
PERIOD_S, FAILURES = 2.0, 3
"""Of the kubelet."""
BEFORE_S = 2.5
CLIENTS, STREAMS, TOKENS, PAUSE_S = 6, 2, 50, 0.02
ADDRESSES = {"a": "127.0.0.2", "b": "127.0.0.3", "c": "127.0.0.4"}
PRESTOP_S = 15.0
"""What KServe's scheduler sleeps before it is told to stop."""


@dataclass(frozen=True)
class Scene:
    """Two pickers of which the first leads, and what Kubernetes does about them."""

    leader: Picker
    other: Picker
    kubelet: Kubelet
    fleet: Fleet
    place: Namespace

    @property
    def members(self) -> tuple[str, ...]:
        """Every engine's address."""
        return tuple(engine.address for engine in self.fleet.by_address.values())

    @property
    def ports(self) -> list[int]:
        return [self.leader.grpc_port, self.other.grpc_port]

    def number(self) -> int:
        """The leader's, at the kubelet."""
        return list(self.kubelet.pickers).index(self.leader)


Make = Callable[[Scene], Json]
"""Envoy's bootstrap."""
Event = Callable[[Scene], None]


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    make: Make
    event: Event
    after_s: float


# ---- what happens


def told_to_stop(scene: Scene) -> None:
    scene.leader.child.process.send_signal(signal.SIGTERM)


def pod_deleted(scene: Scene) -> None:
    """The endpoints controller drops a terminating pod at once; the kubelet tells the process to stop."""
    scene.kubelet.delete(scene.number())
    told_to_stop(scene)


def pod_deleted_with_prestop(scene: Scene) -> None:
    """The same where the kubelet first runs KServe's preStop hook; the leader sees that its pod is being deleted."""
    name = f"epp-{scene.number()}"
    scene.place.apply(cluster.pod(name, app="epp"))
    scene.place.kubectl("delete", "pod", name, "--wait=false")
    pod_deleted_unseen(scene)


def pod_deleted_unseen(scene: Scene) -> None:
    """The same where the leader sees nothing, as other pickers do: it holds the lease until SIGTERM."""
    scene.kubelet.delete(scene.number())
    timer = threading.Timer(PRESTOP_S, told_to_stop, [scene])
    timer.daemon = True
    timer.start()


def killed(scene: Scene) -> None:
    scene.leader.child.kill()


# ---- behind what


def by_readiness(scene: Scene, **setup: Any) -> Json:
    """Envoy gets the ready pickers by EDS. The endpoints' cluster falls back to round robin without a destination."""
    asked = Setup(picker_port=0, picker_tls=True, destination="override_host", endpoints=scene.members, **setup)
    return gateway.by_readiness(asked, scene.kubelet.file)


def fail_open(scene: Scene) -> Json:
    return by_readiness(scene, fail_open=True)


def fail_open_buffered(scene: Scene) -> Json:
    """Bodies are held until the picker has answered, so that they can still go on without it."""
    return by_readiness(scene, fail_open=True, request_body="BUFFERED", response_body="BUFFERED", trailers="SKIP")


def everybody(scene: Scene, *, retry: bool = False, eject: bool = False) -> Json:
    """Both pickers in turn, no health check: followers are asked as much as the leader."""
    config = bootstrap(Setup(picker_port=0, picker_tls=True))
    picker = gateway.picker_cluster(config)
    picker |= {"lb_policy": "ROUND_ROBIN", "connect_timeout": "1s"}
    picker["load_assignment"]["endpoints"] = [{"lb_endpoints": gateway.hosts_at(scene.ports)}]
    if retry:
        gateway.picker_filter(config)["grpc_service"]["retry_policy"] = gateway.RETRY
    if eject:
        picker["outlier_detection"] = gateway.EJECT
    return config


def leader_first(scene: Scene, *, retry: bool = True, eject: bool = True, back_off: bool = True) -> Json:
    config = gateway.leader_first(Setup(picker_port=0, picker_tls=True), scene.ports, retry=retry, eject=eject)
    if retry and not back_off:
        service = gateway.picker_filter(config)["grpc_service"]
        service["retry_policy"] = {name: value for name, value in gateway.RETRY.items() if name != "retry_back_off"}
    return config


def few_retries(scene: Scene) -> Json:
    """With Envoy's default circuit breaker: three retries at once."""
    config = leader_first(scene)
    (threshold,) = gateway.picker_cluster(config)["circuit_breakers"]["thresholds"]
    gateway.picker_cluster(config)["circuit_breakers"] = {
        "thresholds": [{name: value for name, value in threshold.items() if name != "max_retries"}]
    }
    return config


CASES = {
    "SIGTERM, ready ones only": Case(by_readiness, told_to_stop, 9.0),
    "pod deleted, ready ones only": Case(by_readiness, pod_deleted, 9.0),
    "pod deleted with preStop 15 s, ready ones only": Case(by_readiness, pod_deleted_with_prestop, 23.0),
    "pod deleted with preStop 15 s, ready ones only, unseen": Case(by_readiness, pod_deleted_unseen, 23.0),
    "SIGKILL, ready ones only, fail closed": Case(by_readiness, killed, 23.0),
    "SIGKILL, ready ones only, fail open": Case(fail_open, killed, 23.0),
    "SIGKILL, ready ones only, fail open, BUFFERED": Case(fail_open_buffered, killed, 23.0),
    "SIGKILL, everybody in turn": Case(everybody, killed, 6.0),
    "SIGKILL, everybody in turn, retry": Case(lambda scene: everybody(scene, retry=True), killed, 6.0),
    "SIGKILL, everybody in turn, retry, eject": Case(
        lambda scene: everybody(scene, retry=True, eject=True), killed, 6.0
    ),
    "SIGKILL, leader first": Case(lambda scene: leader_first(scene, retry=False, eject=False), killed, 6.0),
    "SIGKILL, leader first, eject": Case(lambda scene: leader_first(scene, retry=False), killed, 6.0),
    "SIGKILL, leader first, retry": Case(lambda scene: leader_first(scene, eject=False), killed, 6.0),
    "SIGKILL, leader first, retry without back-off, eject": Case(
        lambda scene: leader_first(scene, back_off=False), killed, 6.0
    ),
    "SIGKILL, leader first, retry, eject, max_retries 3": Case(few_retries, killed, 6.0),
    "SIGKILL, leader first, retry, eject": Case(leader_first, killed, 6.0),
    "SIGTERM, leader first, retry, eject": Case(leader_first, told_to_stop, 9.0),
}


# ---- measuring


@contextmanager
def scene(server: Server, fleet: Fleet, number: int) -> Iterator[Scene]:
    place = Namespace(server, f"llm-{number}")
    place.open(cluster.pool(fleet.port))
    place.pods(**ADDRESSES)
    file = server.folder / f"pickers-{number}.json"
    with (
        cluster.pickers(place, 2, "--emit-decision-id") as pickers,
        gateway.kubelet(pickers, file, period_s=PERIOD_S, failures=FAILURES) as kubelet,
    ):
        if settles(1, lambda: len(kubelet.changes[-1][1]), within_s=30) != 1:
            raise RuntimeError("no picker leads")
        leads = kubelet.changes[-1][1][0]
        yield Scene(pickers[leads], pickers[1 - leads], kubelet, fleet, place)


def measured(case: Case, around: Scene, folder: Path) -> dict[str, Any]:
    """One round of one case."""
    config = case.make(around)
    with (
        envoy.started(envoy.binary("newest"), config, folder) as proxy,
        load(proxy.port, clients=CLIENTS, streams=STREAMS, tokens=TOKENS, pause_s=PAUSE_S) as clients,
    ):
        # At any moment between two looks of the kubelet, and between two renewals.
        time.sleep(BEFORE_S + random.uniform(0, PERIOD_S))
        total = "llm_d_epp_request_total"
        asked = {"leader": around.leader.metric(total), "other": around.other.metric(total)}
        if set(clients.statuses) != {200}:
            raise RuntimeError(f"not every request is answered before anything happens: {set(clients.statuses)}")
        seen = _seen(case, around, clients, asked)
    return seen.figures(around.kubelet.changes)


def _seen(case: Case, around: Scene, clients: Load, asked: dict[str, float]) -> Seen:
    at = clients.now()
    case.event(around)
    time.sleep(case.after_s)
    return Seen(at, clients.sent, asked)


def main(arguments: Sequence[str] = ()) -> None:
    rounds = int(arguments[0]) if arguments else ROUNDS
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server = Server(folder, stack)
        server.start()
        engines = stack.enter_context(cluster.fleet(folder, len(ADDRESSES), "--inter-token-latency", "20ms"))
        for turn in range(rounds):
            for number, (what, case) in enumerate(CASES.items()):
                here = folder / f"{turn}-{number}"
                here.mkdir()
                with scene(server, engines, turn * len(CASES) + number) as around:
                    found[what].append(measured(case, around, here))
                print(f"{what}: {told(found[what][-1])}", flush=True)
    figures = {
        "what": f"{CLIENTS} clients of short answers, {STREAMS} of {TOKENS} tokens at 20 ms; {rounds} rounds a case",
        "timings_s": {"lease": 15, "renew_deadline": 10, "retry": 2, "probe_period": PERIOD_S, "failures": FAILURES},
        "envoy": envoy.version(envoy.binary("newest")),
        "cases": found,
    }
    print(write("failover", figures))


if __name__ == "__main__":
    main(sys.argv[1:])
