from __future__ import annotations

from typing import Any

import msgspec
import pytest

from epp.feeds.kube_objects import Ours, PoolForm, endpoints_of, form_of, model_rewrites, priorities
from epp.kube.records import InferenceModelRewrite, InferenceObjective, InferencePool, OldInferencePool, Pod
from epp.rewrites import ModelRewrite, RewriteRule, Target
from epp.types import Endpoint

OURS = Ours("pool", "inference.networking.k8s.io")


def pod(**change: Any) -> Pod:
    """A ready pod; `change` goes into metadata, `status` replaces parts of its status."""
    status = {"podIP": "10.0.0.7", "conditions": [{"type": "Ready", "status": "True"}]} | change.pop("status", {})
    meta = {"name": "vllm-0", "namespace": "llm", "labels": {"app": "vllm"}} | change
    return msgspec.convert({"metadata": meta, "status": status, "spec": {"anything": 1}}, Pod)


def test_a_ready_pod_is_an_endpoint_a_port() -> None:
    assert endpoints_of(pod(), (8000, 8001)) == (
        Endpoint("vllm-0-rank-0", "10.0.0.7", 8000, "llm", {"app": "vllm"}, rank=0),
        Endpoint("vllm-0-rank-1", "10.0.0.7", 8001, "llm", {"app": "vllm"}, rank=1),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"deletionTimestamp": "2026-01-01T00:00:00Z"},
        {"status": {"podIP": ""}},
        {"status": {"conditions": []}},
        {"status": {"conditions": None}},
        {"status": {"conditions": [{"type": "Ready", "status": "False"}]}},
        {"status": {"conditions": [{"type": "ContainersReady", "status": "True"}]}},
    ],
    ids=["being deleted", "no address", "no conditions", "null conditions", "not ready", "containers alone are ready"],
)
def test_a_pod_that_can_not_serve_is_no_endpoint(change: dict[str, Any]) -> None:
    assert endpoints_of(pod(**change), (8000,)) == ()


@pytest.mark.parametrize(
    ("annotations", "ranks"),
    [
        ({}, [0, 1, 2]),
        ({"llm-d.ai/active-ports": "8001"}, [1]),
        ({"llm-d.ai/active-ports": " 8002, 8000 "}, [0, 2]),
        ({"inference.networking.k8s.io/active-ports": "8002"}, [2]),
        ({"llm-d.ai/active-ports": "8000", "inference.networking.k8s.io/active-ports": "8002"}, [0]),
        ({"llm-d.ai/active-ports": "8000,9999,x"}, [0]),
        ({"llm-d.ai/active-ports": ""}, []),
        ({"llm-d.ai/active-ports": "9999"}, []),
    ],
    ids=["none", "one", "spaces", "legacy", "current before legacy", "foreign ones ignored", "empty", "only foreign"],
)
def test_an_annotation_names_the_ports_in_use(annotations: dict[str, str], ranks: list[int]) -> None:
    found = endpoints_of(pod(annotations=annotations), (8000, 8001, 8002))
    assert [endpoint.rank for endpoint in found] == ranks
    assert [endpoint.name for endpoint in found] == [f"vllm-0-rank-{rank}" for rank in ranks]


def test_a_pool_of_the_current_version() -> None:
    spec = {
        "selector": {"matchLabels": {"b": "2", "a": "1"}},
        "targetPorts": [{"number": 8001}, {"number": 8000}],
        "appProtocol": "kubernetes.io/h2c",
        "endpointPickerRef": {"name": "x"},
    }
    form = form_of(msgspec.convert({"metadata": {"name": "pool"}, "spec": spec}, InferencePool))
    assert form == PoolForm({"a": "1", "b": "2"}, (8001, 8000), "kubernetes.io/h2c")
    assert form.selector == "a=1,b=2"


def test_a_pool_of_the_former_version() -> None:
    spec = {"selector": {"a": "1"}, "targetPortNumber": 8000, "extensionRef": {"name": "x"}}
    assert form_of(msgspec.convert({"spec": spec}, OldInferencePool)) == PoolForm({"a": "1"}, (8000,))


@pytest.mark.parametrize(
    "spec",
    [
        {"selector": {"matchLabels": {}}, "targetPorts": []},
        {"selector": {"matchLabels": {}}, "targetPorts": [{"number": 0}]},
        {"selector": {"matchLabels": {}}, "targetPorts": [{"number": n} for n in range(1, 10)]},
        {"selector": {"matchLabels": {"a": 1}}, "targetPorts": [{"number": 1}]},
        {"targetPorts": [{"number": 1}]},
    ],
    ids=["no port", "port 0", "nine ports", "a label that is a number", "no selector"],
)
def test_a_pool_that_breaks_its_schema_is_not_taken(spec: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"spec": spec}, InferencePool)


def objective(name: str, **spec: Any) -> InferenceObjective:
    return msgspec.convert(
        {"metadata": {"name": name}, "spec": {"poolRef": {"name": "pool"}, **spec}}, InferenceObjective
    )


def test_objectives_of_our_pool_tell_priorities() -> None:
    found = [
        objective("critical", priority=10),
        objective("batch", priority=-1),
        objective("plain"),
        objective("null", priority=None),
        objective("other", priority=5, poolRef={"name": "another"}),
        objective("elsewhere", priority=5, poolRef={"name": "pool", "group": "x.io"}),
        objective("nobodys", priority=5, poolRef=None),
    ]
    assert priorities(found, OURS) == {"critical": 10, "batch": -1, "plain": 0, "null": 0}


def rewrite(rules: list[dict[str, Any]], pool: str = "pool") -> InferenceModelRewrite:
    meta = {"name": "r", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return msgspec.convert(
        {"metadata": meta, "spec": {"poolRef": {"name": pool}, "rules": rules}}, InferenceModelRewrite
    )


def test_rewrites_of_our_pool_become_rules() -> None:
    matches = [{"model": {"type": "Exact", "value": "a"}}, {"model": {"value": "b"}}]
    targets = [{"weight": 90, "modelRewrite": "v1"}, {"modelRewrite": "v2"}]
    rules = [{"matches": matches, "targets": targets}, {"targets": [{"modelRewrite": "any"}]}]
    assert model_rewrites([rewrite(rules), rewrite(rules, "another")], OURS) == [
        ModelRewrite(
            "r",
            "2026-01-01T00:00:00Z",
            (RewriteRule(("a", "b"), (Target("v1", 90), Target("v2"))), RewriteRule((), (Target("any"),))),
        )
    ]


def test_a_match_without_a_model_matches_all() -> None:
    [found] = model_rewrites([rewrite([{"matches": [{}], "targets": [{"modelRewrite": "x"}]}])], OURS)
    assert found.rules[0].models == ()
