"""The header and metadata names of the picker's contract, both generations, and how requests are read by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from epp.types import Endpoints, Mask

Headers = Mapping[str, tuple[str, ...]]
"""Lower-case name → every value, in the order received."""
Received = dict[str, tuple[str, ...]]
"""The same, as read from Envoy's messages."""
Metadata = Mapping[str, Mapping[str, Any]]
"""Filter metadata by namespace: JSON-like values, whatever other filters put there."""
OwnMetadata = dict[str, dict[str, Any]]
"""The same, of our making."""

DESTINATION = "x-gateway-destination-endpoint"
DROPPED_REASON = "x-llm-d-request-dropped-reason"
REQUEST_ID = "x-request-id"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
SERVED = "x-gateway-destination-endpoint-served"
LOAD_FORMAT = "endpoint-load-metrics-format"
LOAD_REPORT = "endpoint-load-metrics"
SERVICE_TIME = "x-envoy-upstream-service-time"

OBJECTIVE = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
FAIRNESS = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
REWRITE = ("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite")
SLO_TTFT = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
SLO_TPOT = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")

STEERING = frozenset((*OBJECTIVE, *FAIRNESS, *REWRITE, *SLO_TTFT, *SLO_TPOT))
"""What a client may ask for in headers."""

CONTROL = (
    *OBJECTIVE,
    *FAIRNESS,
    *REWRITE,
    *SLO_TTFT,
    *SLO_TPOT,
    "x-llm-d-video-fps",
    "x-llm-d-video-duration-seconds",
    "x-llm-d-video-resolution",
    SUBSET_KEY,
    DESTINATION,
    SERVED,
    DROPPED_REASON,
    "x-prefiller-host-port",
    "x-encoder-hosts-ports",
    "x-data-parallel-host-port",
    "x-kv-cache-source-host-port",
)
"""Taken off every request before ours are set (Envoy removes before it sets): a client must not steer the engine."""


def first(headers: Headers, names: tuple[str, ...]) -> str:
    """The value of the first of `names` that is there; the last one if it is repeated; "" if none is."""
    for name in names:
        values = headers.get(name)
        if values:
            return values[-1]
    return ""


def number(headers: Headers, names: tuple[str, ...]) -> float | None:
    """A positive number of milliseconds, None if absent or no such number."""
    try:
        value = float(first(headers, names) or "nan")
    except ValueError:
        return None
    return value if 0.0 < value < float("inf") else None


def subset(metadata: Metadata, endpoints: Endpoints) -> Mask | None:
    """Which endpoints the gateway's hint allows; None if there is no hint.

    The hint is a list, or a string with commas, of `ip` (every port of it) or `ip:port`. An empty one allows nobody;
    anything else that is no list is no hint.
    """
    hint = metadata.get(SUBSET_NAMESPACE, {}).get(SUBSET_KEY)
    if isinstance(hint, str):
        hint = [entry for entry in hint.split(",") if entry.strip()]
    if not isinstance(hint, list):
        return None
    allowed = {entry.strip() for entry in hint if isinstance(entry, str)}
    return np.array(
        [r.address in allowed or r.host_port in allowed or f"[{r.address}]" in allowed for r in endpoints.records],
        dtype=np.bool_,
    )


def asks_conditional(headers: Headers) -> bool:
    """True if `Prefer` holds the token if-available (RFC 7240; parameters and case ignored)."""
    return any(
        token.split(";", 1)[0].strip().lower() == "if-available"
        for value in headers.get("prefer", ())
        for token in value.split(",")
    )
