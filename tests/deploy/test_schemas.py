"""The schemas tell good from bad: nothing of deploy/ stays good when one of its fields is misspelt."""

from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest

from .documents import Document, Json, documents
from .schemas import OURS, problems
from .sources import sources

WRITTEN = sorted(f"{path.parent.name}/{path.stem}" for path in OURS.glob("*/*.json"))
PUBLISHED = (
    *("core/ConfigMap", "core/Namespace", "core/Secret", "core/Service", "core/ServiceAccount", "apps/Deployment"),
    *("autoscaling/HorizontalPodAutoscaler", "networking.k8s.io/NetworkPolicy", "policy/PodDisruptionBudget"),
    *(f"rbac.authorization.k8s.io/{kind}" for kind in ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")),
)
"""Of the kinds of Kubernetes those that deploy/ has most of."""
KINDS = (*WRITTEN, *PUBLISHED)
NOT_IN_DEPLOY = {
    "inference.networking.x-k8s.io/InferencePool": """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: qwen}
spec:
  selector: {app: qwen}
  targetPortNumber: 8000
  extensionRef: {name: qwen-epp, portNumber: 9002, failureMode: FailClose}
""",
}
"""Kinds that we only read."""


@cache
def examples() -> dict[str, Document]:
    """Group and kind → one object of it, from deploy/ or from NOT_IN_DEPLOY."""
    shipped = [found for source in sources() for found in source.objects]
    read = [found for name, text in NOT_IN_DEPLOY.items() for found in documents(text, name)]
    return {f"{found.group or 'core'}/{found.kind}": found for found in (*shipped, *read)}


def _places(value: Json) -> list[list[str]]:
    """Paths of the fields of an object that no one may name as he likes."""
    first = [[key] for key in value if key not in {"apiVersion", "kind", "metadata"}]
    second = [["spec", key] for key in value.get("spec", {})]
    return [*first, *second]


def _misspelt(document: Document, path: list[str]) -> Document:
    value = deepcopy(document.value)
    around = value
    for key in path[:-1]:
        around = around[key]
    around[path[-1] + "x"] = around.pop(path[-1])
    return Document("misspelt", value)


def test_each_schema_that_we_wrote_is_used() -> None:
    assert set(WRITTEN) - set(examples()) == set()


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_field_is_found(kind: str) -> None:
    document = examples()[kind]
    assert problems(document) == []
    unseen = [path for path in _places(document.value) if not problems(_misspelt(document, path))]
    assert unseen == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_does_not_exist_is_found(kind: str) -> None:
    document = deepcopy(examples()[kind])
    inside = document.value.get("spec", document.value)
    inside["inventedField"] = "x"
    assert any("inventedField" in problem for problem in problems(document))


BAD = {
    "a failure mode that only documents have": (
        "inference.networking.k8s.io/InferencePool",
        {"endpointPickerRef": {"name": "x", "port": {"number": 9002}, "failureMode": "FailClosed"}},
        "spec.endpointPickerRef.failureMode: 'FailClosed' is not one of ['FailOpen', 'FailClose']",
    ),
    "nine ports": (
        "inference.networking.k8s.io/InferencePool",
        {"targetPorts": [{"number": 8000 + n} for n in range(9)]},
        "spec.targetPorts: [{'number': 8000}",
    ),
    "a port twice": (
        "inference.networking.k8s.io/InferencePool",
        {"targetPorts": [{"number": 8000}, {"number": 8000}]},
        "has non-unique elements",
    ),
    "the port of the older version": (
        "inference.networking.k8s.io/InferencePool",
        {"targetPortNumber": 8000},
        "'targetPortNumber' was unexpected",
    ),
    "a threshold that is a number": (
        "keda.sh/ScaledObject",
        {"triggers": [{"type": "prometheus", "metadata": {"serverAddress": "x", "query": "x", "threshold": 16}}]},
        "spec.triggers[0].metadata.threshold: 16 is not of type 'string'",
    ),
    "a priority that is text": ("llm-d.ai/InferenceObjective", {"priority": "high"}, "spec.priority: 'high'"),
    "a pod that is not one": (
        "apps/Deployment",
        {"template": {"spec": {"containers": [{"name": "x", "ports": [{"port": 1}]}]}}},
        "spec.template.spec.containers[0].ports[0]: 'containerPort' is a required property",
    ),
    "a value that was forgotten": ("apps/Deployment", {"replicas": None}, "spec.replicas: has no value"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_found(case: str) -> None:
    kind, spec, told = BAD[case]
    document = deepcopy(examples()[kind])
    document.value["spec"] |= spec
    assert any(told in problem for problem in problems(document)), problems(document)


def test_a_kind_without_a_schema_is_told_with_the_file_to_write() -> None:
    stranger = Document("here", {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}})
    [told] = problems(stranger)
    assert told == "here: Thing x: no schema; write tests/deploy/schemas/example.com/Thing.json"


def test_a_key_written_twice_is_an_error() -> None:
    with pytest.raises(Exception, match="twice in one mapping"):
        documents("spec: {a: 1, a: 2}", "here")
