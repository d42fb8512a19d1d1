"""Who is refused where nobody waits: with the gate flowControl shut, sheddable requests while the pool is full."""

from __future__ import annotations

from epp.flow.saturation import Saturation
from epp.types import Endpoints, Refused, Request


def admit(request: Request, candidates: Endpoints, saturation: Saturation) -> None:
    """Raises Refused for a request of priority below 0 if those it could go to are full.

    Without candidates it passes: the decision refuses it for that.
    """
    if request.priority < 0 and len(candidates) and saturation.of(candidates) >= 1.0:
        raise Refused(429, "system saturated, sheddable request dropped", "rejected-saturated", "admission")
