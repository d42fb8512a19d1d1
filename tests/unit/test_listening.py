"""Sockets that listen."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from epp.listening import listen


def test_a_port_is_listened_on_for_ipv4_as_well() -> None:
    with listen(0, "--grpc-port") as listening, socket.create_connection(("127.0.0.1", listening.getsockname()[1])):
        listening.accept()[0].close()


def test_where_ipv6_is_switched_off_ipv4_alone_is_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(address: Any, *, family: int = socket.AF_INET, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(address, family=family, **more)

    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: True)
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    with listen(0, "--grpc-port") as listening:
        assert listening.family == socket.AF_INET


def test_a_port_that_is_taken_is_named_with_its_flag() -> None:
    with listen(0, "--grpc-port", "127.0.0.1") as first:
        port = first.getsockname()[1]
        with pytest.raises(OSError, match=rf"can't listen on port {port} \(--metrics-port\): Address already in use"):
            listen(port, "--metrics-port", "127.0.0.1")
