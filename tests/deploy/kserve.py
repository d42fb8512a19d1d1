"""What KServe's controller makes of a service: the picker's words, and configs merged over each other.

Written from KServe v0.20: config/llmisvcconfig/config-llm-scheduler.yaml, pkg/controller/v1alpha2/llmisvc/scheduler.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from .documents import Json

POOL = ("--pool-name", "qwen-inference-pool", "--pool-namespace", "llm")
PORTS = ("--zap-encoder", "json", "--grpc-port", "9002", "--grpc-health-port", "9003")
RELOAD, SECURE = "--enable-cert-reload=true", "--secure-serving=true"
SCHEME, CERTIFICATE = "--model-server-metrics-scheme=https", "--cert-path=/var/run/kserve/tls"
MERGED_BY = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "ports": "containerPort",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "plugins": "name",
}
"""List → the key by which a strategic merge patch joins its items; other lists are replaced whole."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """How a picker is started."""

    tls: bool = False
    annotated: bool = True
    """The pod carries app.kubernetes.io/version: 0.10.0, so KServe writes flags and configuration of that version."""
    replicas: int = 1
    tracing: bool = False
    args: tuple[str, ...] = ()
    """Of the template's container."""

    @property
    def argv(self) -> list[str]:
        """The container's command and args without the program's name."""
        leads = ["--ha-enable-leader-election"] if self.replicas > 1 else []
        traces = ["--tracing=true"] if self.tracing else []
        config = ["--config-text", self.configuration]
        return [*POOL, *PORTS, *self._tls(), *self.args, *leads, *config, *traces]

    def _tls(self) -> list[str]:
        """Four words of the preset: with TLS off each renders to the empty string."""
        words = [RELOAD, SECURE, SCHEME, CERTIFICATE]
        if self.annotated:
            words.remove(SCHEME)  # moved into the configuration
        return words if self.tls else [""] * len(words)

    @property
    def configuration(self) -> str:
        """The generated one, marshalled with sorted keys."""
        scorers = {
            "queue-scorer": 2,
            "kv-cache-utilization-scorer": 2,
            "prefix-cache-scorer": 3,
            "no-hit-lru-scorer": 2,
        }
        types = ["single-profile-handler", *scorers, "max-score-picker"]
        plugins: list[Json] = [{"type": name} for name in types]
        if self.tls and self.annotated:
            plugins.append({"type": "metrics-data-source", "parameters": {"scheme": "https"}})
        votes: list[Json] = [{"pluginRef": name, "weight": weight} for name, weight in scorers.items()]
        profile = {"name": "default", "plugins": [*votes, {"pluginRef": "max-score-picker"}]}
        whole = {
            "apiVersion": "llm-d.ai/v1alpha1",
            "kind": "EndpointPickerConfig",
            "plugins": plugins,
            "schedulingProfiles": [profile],
        }
        return yaml.safe_dump(whole, sort_keys=True)


def merged(specs: Iterable[Json]) -> Json:
    """Specs over each other, later ones win, as Kubernetes' strategic merge does it."""
    whole: Json = {}
    for spec in specs:
        whole = _over(whole, spec, "")
    return whole


def _over(below: Json, above: Json, key: str) -> Json:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {name: _over(below.get(name), inner, name) for name, inner in above.items()}
    if isinstance(below, list) and isinstance(above, list) and key in MERGED_BY:
        return _joined(below, above, MERGED_BY[key])
    return above


def _joined(below: list[Json], above: list[Json], by: str) -> list[Json]:
    items = {item[by]: item for item in below}
    for item in above:
        items[item[by]] = _over(items.get(item[by]), item, "")
    return list(items.values())
