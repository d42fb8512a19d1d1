"""probabilistic-admitter: refuse some of the sheddable requests before the pool is full, more the fuller it is."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from epp import Endpoints, Refused, Request
from scorers.saturation import Threshold


def probabilistic_admitter(
    request: Request,
    endpoints: Endpoints,
    rng: np.random.Generator,
    *,
    queue_depth_threshold: Threshold = 5.0,
    kv_cache_util_threshold: Threshold = 0.8,
    power: Threshold = 5.0,
    k: Annotated[float, Meta(gt=0)] = 300.0,
) -> Refused | None:
    """Refuse a request of negative priority with probability min(saturation ^ power × k, 1).

    saturation = the mean over the endpoints of max(waiting / threshold, kv_usage / threshold); 1 where no reading is
    fresh, and where there is no endpoint.
    """
    if request.priority >= 0:
        return None
    full = np.maximum(endpoints.waiting / queue_depth_threshold, endpoints.kv_usage / kv_cache_util_threshold)
    saturation = float(np.where(endpoints.known, full, 1.0).mean()) if len(full) else 1.0
    if rng.random() >= min(saturation**power * k, 1.0):
        return None
    return Refused(
        429,
        "request shed: the pool fills up; send it later, or with an objective of priority 0 or more",
        "rejected-saturated",
    )
