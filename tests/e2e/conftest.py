from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from . import envoy, processes
from .bootstrap import Setup

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
