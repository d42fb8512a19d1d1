"""What Kubernetes objects mean to the picker: pods → endpoints, objectives → priorities, rewrites → rules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from epp.kube.records import (
    InferenceModelRewrite,
    InferenceObjective,
    InferencePool,
    ModelMatch,
    OldInferencePool,
    Pod,
    PoolRef,
    RewriteSpecRule,
)
from epp.rewrites import ModelRewrite, RewriteRule, Target
from epp.types import Endpoint

ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""Annotations of a pod that name the ports in use, the current spelling first."""


@dataclass(frozen=True, slots=True)
class PoolForm:
    """Which pods are endpoints, at which ports, and what they speak."""

    labels: Mapping[str, str]
    ports: tuple[int, ...]
    app_protocol: str = ""

    @property
    def selector(self) -> str:
        """The labels as the API server takes them; in order, so that equal ones are equal."""
        return ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))


def form_of(pool: InferencePool | OldInferencePool) -> PoolForm:
    """What a pool says, of either version."""
    if isinstance(pool, OldInferencePool):
        return PoolForm(pool.spec.selector, (pool.spec.target_port_number,))
    ports = tuple(dict.fromkeys(port.number for port in pool.spec.target_ports))
    return PoolForm(pool.spec.selector.match_labels, ports, pool.spec.app_protocol)


def endpoints_of(pod: Pod, ports: tuple[int, ...]) -> tuple[Endpoint, ...]:
    """One endpoint a port, `<pod>-rank-<i>`; none while the pod is not ready, is being deleted or has no address."""
    meta = pod.metadata
    if meta.deletion_timestamp or not pod.status.pod_ip or not _ready(pod):
        return ()
    active = _active(meta.annotations or {}, ports)
    labels = meta.labels or {}
    return tuple(
        Endpoint(f"{meta.name}-rank-{rank}", pod.status.pod_ip, port, meta.namespace, labels, rank=rank)
        for rank, port in enumerate(ports)
        if port in active
    )


def _ready(pod: Pod) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions or ())


def _active(annotations: Mapping[str, str], ports: tuple[int, ...]) -> frozenset[int]:
    """The pool's ports that the pod serves: all, unless an annotation lists them."""
    listed = next((annotations[name] for name in ACTIVE_PORTS if name in annotations), None)
    if listed is None:
        return frozenset(ports)
    named = {entry.strip() for entry in listed.split(",")}
    return frozenset(port for port in ports if str(port) in named)


@dataclass(frozen=True, slots=True)
class Ours:
    """The pool that objectives and rewrites must name to count here."""

    name: str
    group: str

    def named_by(self, ref: PoolRef | None) -> bool:
        return ref is not None and (ref.name, ref.group) == (self.name, self.group)


def priorities(objectives: Iterable[InferenceObjective], ours: Ours | None) -> dict[str, int]:
    """Priority by objective name; none given counts 0. Without `ours` all are for us."""
    return {
        one.metadata.name: one.spec.priority or 0
        for one in objectives
        if (ours is None or ours.named_by(one.spec.pool_ref)) and not one.metadata.deletion_timestamp
    }


def model_rewrites(rewrites: Iterable[InferenceModelRewrite], ours: Ours | None) -> list[ModelRewrite]:
    """The rewrites for our pool, in the form that requests are matched with. Without `ours` all are for us."""
    return [
        ModelRewrite(one.metadata.name, one.metadata.creation_timestamp or "", tuple(map(_rule, one.spec.rules)))
        for one in rewrites
        if (ours is None or ours.named_by(one.spec.pool_ref)) and not one.metadata.deletion_timestamp
    ]


def _rule(rule: RewriteSpecRule) -> RewriteRule:
    targets = tuple(Target(target.model_rewrite, target.weight) for target in rule.targets)
    return RewriteRule(_models(rule.matches or ()), targets)


def _models(matches: tuple[ModelMatch, ...]) -> tuple[str, ...]:
    """The models a rule is for; none = all, which a match without a model says as well."""
    if any(match.model is None for match in matches):
        return ()
    return tuple(match.model.value for match in matches if match.model is not None)
