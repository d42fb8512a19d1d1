"""grpc.health.v1 by name: what each probe asks for, on the health port and on the ext_proc port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from epp.extproc.servicer import SERVICE

LIVENESS = "liveness"
LISTED = ("", SERVICE, LIVENESS, "readiness", "inference-extension")
PREFIX = "/grpc.health.v1.Health/"


class HealthService(grpc.GenericRpcHandler):
    """`liveness` is always SERVING, draining or not; every other name is readiness, as `ready` tells."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready
        # Any: each method has its own pair of messages.
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            f"{PREFIX}Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=health_pb2.HealthCheckResponse.SerializeToString,
            ),
            f"{PREFIX}List": grpc.unary_unary_rpc_method_handler(
                self._list,
                request_deserializer=health_pb2.HealthListRequest.FromString,
                response_serializer=health_pb2.HealthListResponse.SerializeToString,
            ),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Watch is not offered: it answers UNIMPLEMENTED, as upstream's does."""
        return self._methods.get(details.method)

    def status(self, service: str) -> int:
        serving = service == LIVENESS or self._ready()
        found: int = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        return found

    async def _check(self, request: health_pb2.HealthCheckRequest, _: object) -> health_pb2.HealthCheckResponse:
        return health_pb2.HealthCheckResponse(status=self.status(request.service))

    async def _list(self, _: health_pb2.HealthListRequest, __: object) -> health_pb2.HealthListResponse:
        statuses = {name: health_pb2.HealthCheckResponse(status=self.status(name)) for name in LISTED}
        return health_pb2.HealthListResponse(statuses=statuses)
