"""grpc.health.v1 by name: what each probe asks for, on the health port and on the ext_proc port."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from epp.extproc.servicer import SERVICE

LIVENESS = "liveness"
READINESS = ("", SERVICE, "readiness")
"""Names that ask for everything: leadership and plug-ins too."""
SINGLE = "inference-extension"
"""What charts probe where there is one replica, for liveness and readiness alike."""
PREFIX = "/grpc.health.v1.Health/"

Answer = health_pb2.HealthCheckResponse


class HealthService(grpc.GenericRpcHandler):
    """`liveness` is always SERVING, draining or not; READINESS is what `ready` tells.

    Any other name is what `reachable` tells, readiness but for the plug-ins, while nobody is `elected`; with leader
    election it is unknown.
    """

    def __init__(
        self, ready: Callable[[], bool], *, reachable: Callable[[], bool] | None = None, elected: bool = False
    ) -> None:
        self._ready = ready
        self._reachable = reachable or ready
        self.elected = elected
        # Any: each method has its own pair of messages.
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            f"{PREFIX}Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=Answer.SerializeToString,
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
        """One of HealthCheckResponse's; SERVICE_UNKNOWN is an answer too, not a gRPC error."""
        if service == LIVENESS:
            serving = True
        elif service in READINESS:
            serving = self._ready()
        elif self.elected:
            return int(Answer.SERVICE_UNKNOWN)
        else:
            serving = self._reachable()
        return int(Answer.SERVING if serving else Answer.NOT_SERVING)

    @property
    def listed(self) -> tuple[str, ...]:
        """Names that List tells."""
        return (*READINESS, LIVENESS) if self.elected else (*READINESS, LIVENESS, SINGLE)

    async def _check(self, request: health_pb2.HealthCheckRequest, _: object) -> health_pb2.HealthCheckResponse:
        return Answer(status=self.status(request.service))

    async def _list(self, _: health_pb2.HealthListRequest, __: object) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(statuses={name: Answer(status=self.status(name)) for name in self.listed})
