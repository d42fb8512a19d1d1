"""grpc.health.v1 by name: what each probe asks for, on the health port and on the ext_proc port."""

from __future__ import annotations

from collections.abc import Callable

from grpc_health.v1 import health_pb2

from epp.extproc.service import SERVICE

LIVENESS = "liveness"
READINESS = ("", SERVICE, "readiness")
"""Names that ask for everything: leadership and plug-ins too."""
SINGLE = "inference-extension"
"""What charts probe where there is one replica, for liveness and readiness alike."""
PREFIX = "/grpc.health.v1.Health/"

Answer = health_pb2.HealthCheckResponse


class HealthService:
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
