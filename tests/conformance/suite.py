"""The world of the Gateway API Inference Extension's conformance suite, as far as a picker sees it.

Its pools and echo servers on addresses of loopback, an API server that knows them, the picker started with the suite's
words, and an Envoy in the gateway's place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import executable
from typing import Any

from tests.e2e import cluster, envoy
from tests.e2e.bootstrap import Json, Setup, bootstrap
from tests.e2e.chat import JSON_TYPE, ask
from tests.e2e.client import Reply, request
from tests.e2e.processes import EPP, Picker, child, free_port

ROOT = Path(__file__).parents[2]
SELECTION, SERVED = "test-epp-endpoint-selection", "x-conformance-test-served-endpoint"
NAMESPACE = "inference-conformance-app-backend"
PODS = {
    "primary": ("127.0.1.1", "127.0.1.2", "127.0.1.3"),
    "secondary": ("127.0.2.1", "127.0.2.2", "127.0.2.3"),
    "dp": ("127.0.3.1", "127.0.3.2", "127.0.3.3"),
}
BODY = b'{"model": "conformance-fake-model", "prompt": "Write as if you were a critic: San Francisco"}'
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: header-based-testing-filter}
- {type: destination-endpoint-served-verifier}
- {type: random-picker}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: header-based-testing-filter}, {pluginRef: random-picker}]}
"""
"""What makes the picker the suite's: docs/conformance.md shows it."""
PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute"
SERVED_KEY: Json = {"key": "envoy.lb", "path": [{"key": "x-gateway-destination-endpoint-served"}]}


@dataclass
class World:
    """Everything but pickers and gateways, which are started as they are asked for."""

    folder: Path
    stack: ExitStack
    ports: Mapping[str, tuple[int, ...]]
    """Target ports by pool; `h2c` and `no-ref` are pools over the primary pods."""
    kubeconfig: Path = field(init=False)
    _pickers: dict[str, Picker] = field(default_factory=dict)

    def members(self, pool: str) -> tuple[str, ...]:
        """Every ip:port of a pool."""
        return tuple(f"{address}:{port}" for address in pods_of(pool) for port in self.ports[pool])

    def picker(self, pool: str) -> Picker:
        """The one that serves the pool, started when first asked for."""
        if pool not in self._pickers:
            self._pickers[pool] = self.stack.enter_context(picker(self, pool))
        return self._pickers[pool]


def pods_of(pool: str) -> tuple[str, ...]:
    return PODS.get(pool, PODS["primary"])


@contextmanager
def world(folder: Path) -> Iterator[World]:
    primary, h2c, *ranks = (free_port() for _ in range(5))
    ports = {"primary": (primary,), "secondary": (primary,), "no-ref": (primary,), "h2c": (h2c,), "dp": tuple(ranks)}
    with ExitStack() as stack:
        made = World(folder, stack, ports)
        plain = [place for pool in PODS for place in made.members(pool)]
        places = [*plain, *(f"h2c={place}" for place in made.members("h2c"))]
        echo = stack.enter_context(child([executable, "-m", "tests.conformance.echo", *places], folder / "echo.log"))
        echo.line("^listening")
        server = cluster.Server(folder, stack)
        server.start(*cluster.REVIEWS, *_objects(made, cluster.Namespace(server, NAMESPACE)))
        made.kubeconfig = server.kubeconfig("picker.kubeconfig", cluster.TOKEN)
        yield made


def _objects(made: World, place: cluster.Namespace) -> list[Json]:
    pools = [_pool(made, name) for name in made.ports]
    pods = [_pod(app, address) for app, addresses in PODS.items() for address in addresses]
    return cluster.there(place, *pools, *pods)


def _pool(made: World, name: str) -> Json:
    app = name if name in PODS else "primary"
    one = cluster.pool(*made.ports[name], app=app) | {"metadata": {"name": name}}
    if name == "secondary":
        one["spec"]["appProtocol"] = "http"
    if name == "h2c":
        one["spec"]["appProtocol"] = "kubernetes.io/h2c"
    if name == "no-ref":
        del one["spec"]["endpointPickerRef"]
    return one


def _pod(app: str, address: str) -> Json:
    name = f"{app}-inference-model-server-{address.rpartition('.')[2]}"
    one = cluster.running(name, address)
    return one | {"metadata": {"name": name, "labels": {"app": app}}}


@contextmanager
def picker(made: World, pool: str) -> Iterator[Picker]:
    """With the words of the suite's base.yaml, ports aside, and what makes it the suite's picker."""
    words = ["--pool-name", pool, "--pool-namespace", NAMESPACE, "--zap-encoder", "json"]
    words += ["--grpc-port", "0", "--grpc-health-port", "0"]
    ours = ["--metrics-port=0", "--metrics-endpoint-auth=false", "--allow-experimental-plugins"]
    command = [str(EPP), *words, *ours, "--config-text", CONFIG]
    log = made.folder / f"picker-{pool}-{len(list(made.folder.iterdir()))}.log"
    with child(command, log, {"KUBECONFIG": str(made.kubeconfig)}) as started:
        yield cluster.serves(Picker(started))
        started.kill()


@contextmanager
def gateway(folder: Path, which: str, config: Json) -> Iterator[envoy.Envoy]:
    folder.mkdir(exist_ok=True)
    with envoy.started(envoy.binary(which), config, folder, threads=2) as running:
        yield running


def routed(made: World, pool: str, **setup: Any) -> Json:
    """A bootstrap for one pool: TLS to the picker, the pool's members as Envoy's, a fallback among them."""
    chooser = made.picker(pool)
    kind = {"destination": "override_host", "endpoints": made.members(pool), **setup}
    return bootstrap(Setup(picker_port=chooser.grpc_port, picker_tls=True, **kind))


def telling_who_served(config: Json) -> Json:
    """The same, with the endpoint that was used in the metadata of responses."""
    (policy,) = config["static_resources"]["clusters"][1]["load_balancing_policy"]["policies"]
    policy["typed_extension_config"]["typed_config"]["selected_host_key"] = SERVED_KEY
    return config


def beside(first: Json, second: Json, routes: Sequence[Json]) -> Json:
    """A bootstrap of two pools: the second's clusters are `picker-2` and `endpoints-2`."""
    for cluster_of in second["static_resources"]["clusters"]:
        cluster_of["name"] += "-2"
        first["static_resources"]["clusters"].append(cluster_of)
    manager = first["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    manager["route_config"]["virtual_hosts"][0]["routes"] = list(routes)
    return first


SECOND_PICKER: Json = {
    "envoy.filters.http.ext_proc": {
        "@type": PER_ROUTE,
        "overrides": {"grpc_service": {"envoy_grpc": {"cluster_name": "picker-2"}, "timeout": "10s"}},
    }
}
"""Where a route of the second pool sends its ext_proc streams."""


def post(path: str, *endpoints: str) -> bytes:
    """As the suite asks: an OpenAI body on a path of its own, and who may be picked."""
    chosen = [f"{SELECTION}: {','.join(endpoints)}"] if endpoints else []
    return request("POST", path, JSON_TYPE, *chosen, body=BODY)


def answered_by(reply: Reply) -> str:
    """ip:port that answered, "" for who answered otherwise."""
    if reply.status != 200:
        return ""
    told = json.loads(reply.body)
    return f"{told['pod']}:{told['httpPort']}"


def went_to(proxy: envoy.Envoy, wire: bytes) -> str:
    return answered_by(ask(proxy.port, wire))
