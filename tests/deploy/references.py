"""What objects of one source say of each other: names that must exist, labels and ports that must meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .documents import Document, Json, at, walk
from .pickers import Picker, pickers

WORKLOADS = {
    "Deployment": "spec.template",
    "StatefulSet": "spec.template",
    "DaemonSet": "spec.template",
    "Job": "spec.template",
    "LeaderWorkerSet": "spec.leaderWorkerTemplate.workerTemplate",
}
"""Kind → where its pods' template is."""
NAMED = (
    ("spec.template.spec.serviceAccountName", "ServiceAccount"),
    ("spec.scaleTargetRef", ""),
    ("spec.endpointPickerRef", "Service"),
    ("spec.poolRef", "InferencePool"),
    ("spec.extProc[].backendRefs[]", "Service"),
    ("spec.parentRefs[]", "Gateway"),
    ("spec.rules[].backendRefs[]", "Service"),
    ("spec.targetRefs[]", ""),
    ("spec.targetRef", ""),
    ("spec.triggers[].authenticationRef", "TriggerAuthentication"),
    ("roleRef", ""),
    ("subjects[]", ""),
)
"""Path → kind of what stands there when it does not say so itself."""
INSIDE_PODS = (
    ("configMap", "name", "ConfigMap"),
    ("configMapKeyRef", "name", "ConfigMap"),
    ("configMapRef", "name", "ConfigMap"),
    ("secret", "secretName", "Secret"),
    ("secretKeyRef", "name", "Secret"),
    ("secretRef", "name", "Secret"),
    ("persistentVolumeClaim", "claimName", "PersistentVolumeClaim"),
)
"""Field of a pod → the key with the name → kind."""
SELECTING = {
    "Service": "spec.selector",
    "InferencePool": "spec.selector.matchLabels",
    "PodDisruptionBudget": "spec.selector.matchLabels",
    "NetworkPolicy": "spec.podSelector.matchLabels",
    "PodMonitoring": "spec.selector.matchLabels",
}
"""Kind → labels that some pod must carry."""


@dataclass(frozen=True)
class Pods:
    """The pods of a workload: where from, labels, PodSpec."""

    owner: Document
    labels: Json
    spec: Json

    @property
    def ports(self) -> list[Json]:
        places = ("containers[].ports[]", "initContainers[].ports[]")
        return [port for place in places for port in at(self.spec, place)]


def loose_ends(found: list[Document]) -> Iterator[tuple[str, str]]:
    """Every reference that leads nowhere within the source: what is missing, and who asks for it."""
    for document in found:
        for kind, name in (*_named(document), *_in_pods(document), *_pools(document)):
            if not (name.startswith("system:") or any((other.kind, other.name) == (kind, name) for other in found)):
                yield f"{kind}/{name}", str(document)
    yield from _unselected(found)


def _named(document: Document) -> Iterator[tuple[str, str]]:
    for path, kind in NAMED:
        for target in at(document.value, path):
            if isinstance(target, str):
                yield kind, target
            else:
                yield target.get("kind", kind), target["name"]


def _in_pods(document: Document) -> Iterator[tuple[str, str]]:
    for _, value in walk(document.value):
        for field, key, kind in INSIDE_PODS if isinstance(value, dict) else ():
            source = value.get(field)
            if isinstance(source, dict) and key in source and not source.get("optional"):
                yield kind, source[key]


def _pools(document: Document) -> Iterator[tuple[str, str]]:
    """Pools that pickers are told to serve."""
    for picker in pickers([document]):
        if "pool-name" in picker.options.given:
            yield "InferencePool", picker.options.pool_name


def pods(found: list[Document]) -> list[Pods]:
    """The pods that the workloads of a source would make."""
    return [
        Pods(document, template.get("metadata", {}).get("labels", {}), template["spec"])
        for document in found
        for template in at(document.value, WORKLOADS.get(document.kind, "-"))
    ]


def _unselected(found: list[Document]) -> Iterator[tuple[str, str]]:
    for document in found:
        for labels in at(document.value, SELECTING.get(document.kind, "-")):
            if labels and not selected(labels, pods(found)):
                yield f"Pod/{_written(labels)}", str(document)
        for labels in at(document.value, "spec.selector.matchLabels") if document.kind == "ServiceMonitor" else ():
            if not _monitored(document, labels, found):
                yield f"Service/{_written(labels)}", str(document)


def _monitored(monitor: Document, labels: Json, found: list[Document]) -> bool:
    """There are Services with these labels, and they have the ports it scrapes."""
    services = [one for one in found if one.kind == "Service" and _has(one.value["metadata"].get("labels"), labels)]
    scraped = set(at(monitor.value, "spec.endpoints[].port"))
    return bool(services) and all(scraped <= set(at(service.value, "spec.ports[].name")) for service in services)


def selected(labels: Json, among: list[Pods]) -> list[Pods]:
    return [pod for pod in among if _has(pod.labels, labels)]


def _has(labels: Json, wanted: Json) -> bool:
    return set(wanted.items()) <= set((labels or {}).items())


def _written(labels: Json) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def misfits(found: list[Document]) -> Iterator[str]:
    """Ports, mounts and labels that do not fit each other."""
    for pod in pods(found):
        yield from _own_selector(pod)
        yield from _inside(pod)
    for document in found:
        if document.kind == "Service":
            yield from _service_ports(document, pods(found))
        if document.kind == "InferencePool":
            yield from _picker_port(document, found)
        for subject in at(document.value, "subjects[]"):
            if subject["kind"] == "ServiceAccount" and "namespace" not in subject:
                yield f"{document}: the account {subject['name']} has no namespace"
    for picker in pickers(found):
        yield from _listens_elsewhere(picker)


def _own_selector(pod: Pods) -> Iterator[str]:
    for wanted in at(pod.owner.value, "spec.selector.matchLabels"):
        if not _has(pod.labels, wanted):
            yield f"{pod.owner}: its selector {_written(wanted)} does not match its own pods"


def _inside(pod: Pods) -> Iterator[str]:
    """Mounts name volumes, probes and hooks name ports, port names are the pod's own."""
    volumes = set(at(pod.spec, "volumes[].name"))
    names = [port["name"] for port in pod.ports if "name" in port]
    if len(names) != len(set(names)):
        yield f"{pod.owner}: two ports of a pod with one name: {sorted(names)}"
    for container in (*at(pod.spec, "containers[]"), *at(pod.spec, "initContainers[]")):
        for mount in at(container, "volumeMounts[].name"):
            if mount not in volumes:
                yield f"{pod.owner}: {container['name']} mounts {mount!r}, which is no volume of the pod"
        yield from (f"{pod.owner}: {container['name']} {problem}" for problem in _probes(container))
    for volume in volumes - set(at(pod.spec, "containers[].volumeMounts[].name")):
        yield f"{pod.owner}: nobody mounts the volume {volume!r}"


def _probes(container: Json) -> Iterator[str]:
    ports = at(container, "ports[]")
    known = {port["containerPort"] for port in ports} | {port.get("name") for port in ports}
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        for way in ("grpc", "httpGet", "tcpSocket"):
            for port in at(container, f"{probe}.{way}.port"):
                if port not in known:
                    yield f"has a {probe} on {port}, which is none of its ports"


def _service_ports(service: Document, among: list[Pods]) -> Iterator[str]:
    for pod in selected(service.value["spec"].get("selector") or {"": ""}, among):
        known = {port["containerPort"] for port in pod.ports} | {port.get("name") for port in pod.ports}
        for port in at(service.value, "spec.ports[]"):
            if port.get("targetPort", port["port"]) not in known:
                yield f"{service}: port {port['port']} leads to {port.get('targetPort')}, no port of {pod.owner}"


def _picker_port(pool: Document, found: list[Document]) -> Iterator[str]:
    for reference in at(pool.value, "spec.endpointPickerRef"):
        number = reference["port"]["number"]
        for service in found:
            named = service.kind == "Service" and service.name == reference["name"]
            if named and number not in at(service.value, "spec.ports[].port"):
                yield f"{pool}: {service} has no port {number}"


def _listens_elsewhere(picker: Picker) -> Iterator[str]:
    """Where ports carry the names that everybody gives them, they are the ones the picker opens."""
    options = picker.options
    opened = {"grpc": options.grpc_port, "grpc-health": options.grpc_health_port, "metrics": options.metrics_port}
    for port in at(picker.container, "ports[]"):
        name, number = port.get("name"), port["containerPort"]
        if opened.get(name, number) != number:
            yield f"{picker.where}: listens on {opened[name]} for {name}, its port says {number}"
