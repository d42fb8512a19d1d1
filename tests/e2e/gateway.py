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


PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
RETRY: Json = {
    "retry_on": "connect-failure,refused-stream,reset,unavailable",
    "num_retries": 5,
    # Without it Envoy waits up to a second before the first new attempt.
    "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": f"type.googleapis.com/{PREVIOUS_HOSTS}"},
        }
    ],
    "host_selection_retry_max_attempts": 5,
}
"""Of the ext_proc filter's grpc_service: a stream that got no answer yet goes to another picker."""
EJECT: Json = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 1,
    "interval": "1s",
    "base_ejection_time": "5s",
    "max_ejection_percent": 100,
}
"""Who refuses a connection is left out at once, without waiting for the next health check."""


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
    kind = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
    found = {"@type": kind, "cluster_name": "picker", "endpoints": [{"lb_endpoints": hosts_at(ports)}]}
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"version_info": str(time.monotonic_ns()), "resources": [found]}))
    part.replace(file)


def hosts_at(ports: Sequence[int]) -> list[Json]:
    addresses = [{"address": "127.0.0.1", "port_value": port} for port in ports]
    return [{"endpoint": {"address": {"socket_address": address}}} for address in addresses]


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


def leader_first(setup: Setup, ports: Sequence[int], *, retry: bool = True, eject: bool = True) -> Json:
    """A bootstrap that knows every picker, sends to the leader, and to anybody while nobody leads.

    `retry` and `eject` are the settings that keep what is not in flight from being lost; benchmarks leave them out.
    """
    config = bootstrap(setup)
    cluster = picker_cluster(config)
    cluster["connect_timeout"] = "1s"
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": hosts_at(ports)}]
    cluster["health_checks"] = [health_check("readiness")]
    # Only with nobody healthy is everybody tried; at the default of half, three replicas would always be.
    cluster["common_lb_config"] = {"healthy_panic_threshold": {"value": 1.0}}
    if eject:
        cluster["outlier_detection"] = EJECT
    if retry:
        picker_filter(config)["grpc_service"]["retry_policy"] = RETRY
    return config


def health_check(service: str) -> Json:
    return {
        "interval": "1s",
        "no_traffic_interval": "1s",
        "timeout": "1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "grpc_health_check": {"service_name": service},
        "tls_options": {"alpn_protocols": ["h2"]},
    }


def picker_filter(config: Json) -> Json:
    """The ext_proc filter of a bootstrap."""
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    filters: list[Json] = manager["http_filters"]
    found: Json = next(one["typed_config"] for one in filters if one["name"] == "envoy.filters.http.ext_proc")
    return found
