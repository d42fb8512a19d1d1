"""Plug-in types of the llm-d router that this picker does not have: refused by name, or accepted where idle is right.

A type that is installed here, by whatever package, is in neither table's way: the installed one is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Idle:
    """A type that a configuration may carry without effect."""

    why: str
    alpha: bool = False


ONE_WAY = "flowControl.enableEviction evicts sheddable requests, the least important and newest first, as upstream does"
IDLE: Mapping[str, Idle] = {
    "sheddable-eviction-filter": Idle(ONE_WAY, alpha=True),
    "priority-then-time-eviction-order-policy": Idle(ONE_WAY, alpha=True),
    "endpoint-notification-source": Idle("plug-ins need no notice of endpoints that come and go"),
    "models-data-source": Idle("nothing reads the engines' lists of models"),
    "models-data-extractor": Idle("nothing reads the engines' lists of models"),
}
DISAGGREGATION = "prefill/decode disaggregation"
ONE_STAGE = (
    "remove it, and use single-profile-handler with one profile that has decode-filter: decode endpoints then compute "
    "the prompt too"
)
MULTICLUSTER = "routing between clusters"
TOPOLOGY = "affinity by topology"
ABSENT: Mapping[str, tuple[str, str]] = {
    "disagg-profile-handler": (DISAGGREGATION, ONE_STAGE),
    "pd-profile-handler": (DISAGGREGATION, ONE_STAGE),
    "disagg-headers-handler": (DISAGGREGATION, ONE_STAGE),
    "prefill-header-handler": (DISAGGREGATION, ONE_STAGE),
    "always-disagg-pd-decider": (DISAGGREGATION, ONE_STAGE),
    "prefix-based-pd-decider": (DISAGGREGATION, ONE_STAGE),
    "always-disagg-multimodal-decider": (DISAGGREGATION, ONE_STAGE),
    "data-parallel-profile-handler": (
        "data-parallel ports behind one proxy",
        "use single-profile-handler and give every rank's port as an endpoint of its own",
    ),
    "precise-prefix-cache-producer": ("prefix caching by KV events", "use approx-prefix-cache-producer"),
    "precise-prefix-cache-scorer": (
        "prefix caching by KV events",
        "use prefix-cache-scorer, which works with approx-prefix-cache-producer",
    ),
    "burst-prefix-cache-producer": ("placing bursts together", "use approx-prefix-cache-producer"),
    "p2p-source-producer": ("copying KV blocks between endpoints", "remove it"),
    "mm-embeddings-cache-producer": ("encoder-cache affinity", "remove it"),
    "mm-embeddings-cache-scorer": (
        "encoder-cache affinity",
        "use prefix-cache-scorer: images count as prompt blocks by their content",
    ),
    "disaggregatedset-rollout-screener": ("rollouts by revision", "use label-selector-filter"),
    "topology-affinity-filter": (TOPOLOGY, "use label-selector-filter"),
    "topology-affinity-scorer": (TOPOLOGY, "use header-label-affinity-scorer"),
    "topology-extractor": (TOPOLOGY, "remove it"),
    "dcgm-data-source": ("GPU utilization from DCGM", "use kv-cache-utilization-scorer on the engines' own metrics"),
    "dcgm-extractor": ("GPU utilization from DCGM", "use kv-cache-utilization-scorer on the engines' own metrics"),
    "k8s-notification-source": ("watching Kubernetes objects for plug-ins", "remove it"),
    "vertexai-parser": ("Vertex AI's gRPC API", "use openai-parser, or passthrough-parser to route without reading"),
    "multicluster-queue-scorer": (MULTICLUSTER, "use queue-scorer"),
    "multicluster-kv-cache-utilization-scorer": (MULTICLUSTER, "use kv-cache-utilization-scorer"),
    "multicluster-prefix-cache-scorer": (MULTICLUSTER, "use prefix-cache-scorer"),
    "multicluster-approx-prefix-cache-producer": (MULTICLUSTER, "use approx-prefix-cache-producer"),
    "multicluster-session-affinity-filter": (MULTICLUSTER, "use session-affinity-filter"),
    "multicluster-metrics-data-source": (MULTICLUSTER, "use metrics-data-source"),
    "multicluster-metrics-extractor": (MULTICLUSTER, "use core-metrics-extractor"),
    "multicluster-file-discovery": (MULTICLUSTER, "use file-discovery, which takes host names too"),
}
"""Type → what it is about and what to use instead."""

GONE: Mapping[str, str] = {
    "least-kv-cache-filter": "use kv-cache-utilization-scorer",
    "least-queue-filter": "use queue-scorer",
    "low-queue-filter": "use utilization-filter",
    "lora-affinity-filter": "use lora-affinity-scorer",
    "sheddable-capacity-filter": "remove it",
    "decision-tree-filter": "use scorers with weights",
    "simple-profile-handler": "use single-profile-handler",
    "predicted-latency-scorer": "use latency-scorer",
    "slo-aware-routing": "use latency-scorer, and slo-headroom-tier-filter before it",
    "slo-aware-scorer": "use latency-scorer",
    "slo-aware-profile-handler": "use single-profile-handler",
}
"""Types that the llm-d router had once."""


def refusal(type_name: str) -> str:
    """What is to say of a type that can't be used, after its name; "" if it is not one of these."""
    if type_name in ABSENT:
        about, instead = ABSENT[type_name]
        return f"is known upstream but not offered here ({about}); {instead}"
    if type_name in GONE:
        return f"is a type the llm-d router no longer has; {GONE[type_name]}"
    return ""
