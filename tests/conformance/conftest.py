from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.e2e.processes import CONFIG, Picker, endpoints_file, picker

from .gateway import Gateway

QUIET = ("--max-cooling-share=0", "--refresh-prometheus-metrics-interval=50ms", "--enable-grpc-stream-metrics")
"""Streams here end without a response, which must not turn later requests away from an endpoint."""


@pytest.fixture(scope="session")
def addresses() -> Iterator[list[str]]:
    """Two ports of one address and one of another: they take connections and answer nothing."""
    with ExitStack() as stack:
        hosts = ("127.0.0.1", "127.0.0.1", "127.0.0.2")
        listeners = [stack.enter_context(socket.create_server((host, 0))) for host in hosts]
        yield [f"{host}:{one.getsockname()[1]}" for host, one in zip(hosts, listeners, strict=True)]


@pytest.fixture(scope="session")
def chooser(tmp_path_factory: pytest.TempPathFactory, addresses: list[str]) -> Iterator[Picker]:
    """The picker with the default scorers; the fourth endpoint has an IPv6 address."""
    folder = tmp_path_factory.mktemp("chooser")
    endpoints = endpoints_file(folder / "endpoints.yaml", [*addresses, "[::1]:9"])
    flags = (*QUIET, "--emit-endpoint-scores", "--emit-decision-id", "--max-held-bytes=33Mi")
    with picker(folder, endpoints, *flags, config=CONFIG) as running:
        yield running


@pytest.fixture(scope="session")
def gateway(chooser: Picker) -> Iterator[Gateway]:
    opened = Gateway(chooser.grpc_port)
    yield opened
    opened.close()
