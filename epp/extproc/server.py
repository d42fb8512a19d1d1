"""Listeners on grpc.aio: ext_proc with health, and the plaintext health port."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from epp.extproc.dialogue import Dialogue
from epp.extproc.health import HealthService
from epp.extproc.readiness import Readiness
from epp.extproc.service import StreamWatch
from epp.extproc.servicer import HealthServicer, Servicer
from epp.extproc.tls import Certificates, grpc_credentials

KEEPALIVE = (
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 1000),
    ("grpc.so_reuseport", 0),
)
"""Envoy may ping as it likes; a port that is taken is an error, not shared with a stranger."""


class GrpcServer:
    """A Server on grpc.aio.

    `elected`: replicas elect one of them, which changes what probes are told.
    """

    def __init__(
        self,
        open_dialogue: Callable[[], Dialogue],
        watch: StreamWatch,
        readiness: Readiness,
        *,
        elected: bool = False,
        max_recv_bytes: int,
        max_send_bytes: int,
    ) -> None:
        limits = (("grpc.max_receive_message_length", max_recv_bytes), ("grpc.max_send_message_length", max_send_bytes))
        health = HealthServicer(HealthService(readiness.ready, reachable=readiness.reachable, elected=elected))
        self._serving = _server([Servicer(open_dialogue, watch), health], (*KEEPALIVE, *limits))
        self._health = _server([health], KEEPALIVE)

    async def start(self, port: int, health_port: int, certificates: Certificates | None) -> tuple[int, int]:
        bound = _bind(self._serving, port, certificates, "--grpc-port")
        health_bound = _bind(self._health, health_port, None, "--grpc-health-port")
        await self._serving.start()
        await self._health.start()
        return bound, health_bound

    async def stop(self, grace_s: float) -> None:
        await self._serving.stop(grace_s)
        await self._health.stop(0)


def _server(handlers: Sequence[grpc.GenericRpcHandler], options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    return grpc.aio.server(handlers=list(handlers), options=list(options))


def _bind(server: grpc.aio.Server, port: int, certificates: Certificates | None, flag: str) -> int:
    address = f"[::]:{port}"
    try:
        if certificates is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, grpc_credentials(certificates))
    except RuntimeError as error:
        raise OSError(f"can't listen on port {port} ({flag}): {error}") from None
