"""A scorer in a package of its own."""

from typing import Annotated

import numpy as np
from msgspec import Meta

from epp import Endpoints, Request, Scores


def short_queue(request: Request, endpoints: Endpoints, *, half_at: Annotated[float, Meta(gt=0)] = 4.0) -> Scores:
    """Prefer short queues: 1 when empty, 1/2 at `half_at` waiting requests."""
    return np.exp2(-endpoints.waiting / half_at)
