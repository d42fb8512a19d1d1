"""An Envoy that finds pickers as a gateway in Kubernetes does, and what stands between: kubelet and endpoints."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from .bootstrap import Json, Setup, bootstrap
from .processes import Picker

SERVING = health_pb2.HealthCheckResponse.SERVING
TIMEOUT_S = 1.0
"""Of a probe, as KServe and the charts have it."""


def serving(picker: Picker, service: str = "readiness", timeout_s: float = TIMEOUT_S) -> bool:
    """One probe over a connection of its own, as the kubelet does it."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{picker.ports['grpc_health_port']}", options) as channel:
        try:
            check = health_pb2_grpc.HealthStub(channel).Check
            return bool(check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s).status == SERVING)
        except grpc.RpcError:
            return False


@dataclass
class Kubelet:
    """Probes pickers and writes the ready ones where Envoy reads its endpoints.

    One answer makes ready, `failures` in a row unready; of a process that has ended it takes one look.
    """

    pickers: Sequence[Picker]
    file: Path
    period_s: float = 2.0
    failures: int = 3
    changes: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)
    """When the set of ready ones changed, and to which, by their numbers."""
    deleted: set[int] = field(default_factory=set)
    """Pods with a deletionTimestamp are no endpoints, whatever they answer."""
    _missed: dict[int, int] = field(default_factory=dict)
    _ready: tuple[int, ...] = ()
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> None:
        """Probe each once and write what changed."""
        for number, picker in enumerate(self.pickers):
            self._missed[number] = 0 if serving(picker) else self._missed.get(number, self.failures) + 1
        self.write()

    def write(self) -> None:
        with self._lock:
            ready = tuple(number for number in range(len(self.pickers)) if self._is_ready(number))
            if ready != self._ready or not self.file.exists():
                self._ready = ready
                self.changes.append((time.monotonic(), ready))
                write_endpoints(self.file, [self.pickers[number].grpc_port for number in ready])

    def delete(self, number: int) -> None:
        """A pod gets its deletionTimestamp: the endpoints controller hears at once."""
        self.deleted.add(number)
        self.write()

    def _is_ready(self, number: int) -> bool:
        if number in self.deleted or self.pickers[number].child.process.poll() is not None:
            return False
        missed = self._missed.get(number, self.failures)
        return missed == 0 or (number in self._ready and missed < self.failures)

    def run(self) -> None:
        while not self._over.wait(self.period_s):
            self.look()

    def stop(self) -> None:
        self._over.set()


@contextmanager
def kubelet(pickers: Sequence[Picker], file: Path, *, period_s: float, failures: int = 3) -> Iterator[Kubelet]:
    watching = Kubelet(pickers, file, period_s, failures)
    watching.look()
    thread = threading.Thread(target=watching.run, name="kubelet")
    thread.start()
    try:
        yield watching
    finally:
        watching.stop()
        thread.join()


def write_endpoints(file: Path, ports: Sequence[int]) -> None:
    """As Envoy reads them, moved into place: that is what it watches for."""
    hosts = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    found = {"@type": kind, "cluster_name": "picker", "endpoints": [{"lb_endpoints": hosts}]}
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": [found]}))
    part.replace(file)


def picker_cluster(config: Json) -> Json:
    """The cluster of a bootstrap that holds the picker."""
    found: Json = config["static_resources"]["clusters"][0]
    return found


def by_readiness(setup: Setup, file: Path) -> Json:
    """A bootstrap that reads the picker's addresses from the file, as by EDS."""
    config = bootstrap(setup)
    config["node"] = {"id": "gateway", "cluster": "gateway"}
    cluster = picker_cluster(config)
    del cluster["load_assignment"]
    source = {"path_config_source": {"path": str(file)}, "resource_api_version": "V3"}
    cluster |= {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
    return config
