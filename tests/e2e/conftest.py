from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from . import cluster, envoy, processes
from .bootstrap import Setup
from .served import Served

NUMBERS = itertools.count(1)
FAST = ("--inter-token-latency", "1ms", "--prefill-overhead", "1ms", "--prefill-time-per-token", "1us")


@pytest.fixture(params=["oldest", "newest"])
def which(request: pytest.FixtureRequest) -> str:
    """Which Envoy."""
    return cast("str", request.param)


@dataclass(frozen=True)
class Town:
    """Four engines and a picker that no test disturbs."""

    engines: list[processes.Engine]
    picker: processes.Picker


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    with processes.engines(folder, 4, *FAST) as engines:
        endpoints = processes.endpoints_file(folder / "endpoints.yaml", [engine.address for engine in engines])
        with processes.picker(folder, endpoints) as picker:
            yield Town(engines, picker)


Proxied = Callable[..., envoy.Envoy]


@pytest.fixture
def proxied(which: str, tmp_path: Path) -> Iterator[Proxied]:
    """Starts an Envoy in front of a picker; fields of Setup as keywords."""
    with ExitStack() as stack:

        def start(picker: processes.Picker, threads: int = 1, **setup: Any) -> envoy.Envoy:
            asked = Setup(picker_port=picker.grpc_port, **setup)
            folder = tmp_path / f"envoy-{picker.grpc_port}"
            folder.mkdir()
            return stack.enter_context(envoy.running(envoy.binary(which), asked, folder, threads=threads))

        yield start


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Fleet]:
    """Three engines of two ports each, as pods are; no test disturbs them."""
    with cluster.fleet(tmp_path_factory.mktemp("fleet"), 3, *FAST, ports=2) as running:
        yield running


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Server]:
    """For tests that leave it running."""
    with ExitStack() as stack:
        shared = cluster.Server(tmp_path_factory.mktemp("apiserver"), stack)
        shared.start()
        yield shared


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[cluster.Server]:
    """An API server for this test only, not yet started."""
    with ExitStack() as stack:
        yield cluster.Server(tmp_path, stack)


@pytest.fixture
def place(apiserver: cluster.Server) -> cluster.Namespace:
    """A namespace for this test only, not yet made."""
    return cluster.Namespace(apiserver, f"llm-{next(NUMBERS)}")


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a picker for a namespace, and an Envoy that dials it with TLS as gateways do."""
    with ExitStack() as stack:

        def start(place: cluster.Namespace, *flags: str, **options: Any) -> Served:
            kubeconfig = place.server.kubeconfig(f"{place.name}.kubeconfig", cluster.TOKEN)
            picker = cluster.serves(stack.enter_context(cluster.picker(place, kubeconfig, *flags, **options)))
            folder = tmp_path / f"envoy-{picker.grpc_port}"
            folder.mkdir()
            setup = Setup(picker_port=picker.grpc_port, picker_tls=True)
            return Served(picker, stack.enter_context(envoy.running(envoy.binary("newest"), setup, folder)))

        yield start
