"""Objectives and rewrites in a file: what is read, what is refused and what is said of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds import FeedError
from epp.feeds.manifests import VERSIONS, Manifests, read_manifests
from epp.kube.records import InferenceModelRewrite, InferenceObjective

OBJECTIVE = """\
apiVersion: llm-d.ai/v1alpha2
kind: InferenceObjective
metadata: {name: chat, creationTimestamp: 2026-01-01T00:00:00Z}
spec: {priority: 5, poolRef: {kind: InferencePool, name: p}}
status: {conditions: []}
"""
REWRITE = """\
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {name: split}
spec:
  rules:
  - matches: [{model: {type: Exact, value: m}}]
    targets: [{modelRewrite: a, weight: 90}, {modelRewrite: b, weight: 10}]
"""
BOTH = ["InferenceObjective/chat", "InferenceModelRewrite/split"]


def objective(name: object = "chat", version: str = VERSIONS[0], **spec: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": "InferenceObjective", "metadata": {"name": name}, "spec": spec}


def rewrite(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {"rules": list(rules), **more}
    return {
        "apiVersion": VERSIONS[0],
        "kind": "InferenceModelRewrite",
        "metadata": {"name": "split"},
        "spec": spec,
    }


def listed(*objects: dict[str, Any], kind: str = "List") -> str:
    return json.dumps({"apiVersion": "v1", "kind": kind, "items": objects})


def read(*objects: dict[str, Any]) -> Manifests:
    return read_manifests(listed(*objects))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"# by hand\n---\n{OBJECTIVE}---\n{REWRITE}---\n", id="documents"),
        pytest.param(
            "kind: List\nitems:\n- "
            + OBJECTIVE.replace("\n", "\n  ").rstrip()
            + "\n- "
            + REWRITE.replace("\n", "\n  "),
            id="a list",
        ),
        pytest.param(
            listed(objective(priority=5), rewrite({"targets": [{"modelRewrite": "a"}]})).replace(", ", ",\t"), id="JSON"
        ),
    ],
)
def test_what_kubectl_takes_is_read(text: str) -> None:
    found = read_manifests(text)
    assert (list(found.objects), found.errors, found.warnings) == (BOTH, (), ())


def test_a_typed_list_is_a_list_too() -> None:
    assert list(read_manifests(listed(objective(), kind="InferenceObjectiveList")).objects) == BOTH[:1]


def test_objects_of_both_groups_become_the_records_of_kubernetes() -> None:
    chat, split = read_manifests(f"{OBJECTIVE}---\n{REWRITE}").objects.values()
    assert isinstance(chat, InferenceObjective)
    assert (chat.spec.priority, chat.metadata.creation_timestamp) == (5, "2026-01-01T00:00:00Z")
    assert isinstance(split, InferenceModelRewrite)
    assert [(target.model_rewrite, target.weight) for target in split.spec.rules[0].targets] == [("a", 90), ("b", 10)]


TARGETS: dict[str, Any] = {"targets": [{"modelRewrite": "a"}]}


@pytest.mark.parametrize(
    ("spoilt", "rule"),
    [
        (objective(priority="5"), "Expected `int | null`, got `str` - at `$.spec.priority`"),
        (objective(priority=2**31), "Expected `int` <= 2147483647 - at `$.spec.priority`"),
        (objective(prio=5), "spec has no field 'prio'; did you mean priority?"),
        (objective(name=7), "Expected `str`, got `int` - at `$.metadata.name`; put it in quotes"),
        (objective(name=""), "metadata.name is missing; requests, logs and metrics call it by that"),
        (objective(version="llm-d.ai/v1"), "apiVersion 'llm-d.ai/v1' is not known; write llm-d.ai/v1alpha2"),
        ({**objective(), "spec": None}, "Expected `object`, got `null` - at `$.spec`"),
        (rewrite(), "spec.rules is empty; give at least one rule, or remove the object"),
        (rewrite({"targets": []}), "Expected `array` of length >= 1 - at `$.spec.rules[0].targets`"),
        (
            rewrite(TARGETS, poolRef={"name": "p", "gruop": "x"}),
            "spec.poolRef has no field 'gruop'; did you mean group",
        ),
        (
            rewrite({"targets": [{"modelRewrite": "a", "wieght": 90}]}),
            "spec.rules[0].targets[0] has no field 'wieght'; did you mean weight?",
        ),
        (
            rewrite({"targets": [{"modelRewrite": "a", "weight": -1}]}),
            "Expected `int` >= 0 - at `$.spec.rules[0].targets[0].weight`",
        ),
        (rewrite({"targets": [{"modelRewrite": ""}]}), "spec.rules[0]: a target's modelRewrite is empty"),
        (rewrite({"matches": [{"model": {"value": ""}}], **TARGETS}), "spec.rules[0]: a match's value is empty"),
        (rewrite({"matches": [{"model": {"value": "m", "type": "Regex"}}], **TARGETS}), "Invalid enum value 'Regex'"),
    ],
)
def test_an_object_that_breaks_a_rule_is_named_and_the_others_are_read(spoilt: dict[str, Any], rule: str) -> None:
    found = read(spoilt, objective("good"))
    assert list(found.objects) == ["InferenceObjective/good"]
    [problem] = found.errors
    assert str(problem).startswith("document 1, items[0]")
    assert rule in problem.rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "the file holds no object; write `{apiVersion: v1, kind: List, items: []}` for none"),
        ("# none\n---\n", "the file holds no object"),
        ("kind: List\n", "document 1: kind List needs a list named items"),
        ("- a\n", "document 1 is no Kubernetes object; begin it with `apiVersion: llm-d.ai/v1alpha2`"),
        (OBJECTIVE + "---\nspec: [", "not YAML"),
        ("[" * 100_000, "not YAML"),
        ("kind: !!bool maybe", "not YAML"),
        ("&a {kind: List, items: [*a]}", "too many lists in one document"),
        ("kind: List\nitems:\n- &a {kind: List, items: []}\n- *a\n", "too many lists in one document"),
        ("a" * 1024 * 1025, "the file has more than 1048576 bytes"),
    ],
    ids=[
        "empty",
        "comments",
        "no items",
        "a list alone",
        "cut off",
        "deep",
        "no bool",
        "in itself",
        "twice",
        "too long",
    ],
)
def test_a_file_that_can_not_be_read_at_all_says_why(text: str, rule: str) -> None:
    with pytest.raises(FeedError) as refused:
        read_manifests(text)
    assert rule in str(refused.value)


def test_an_empty_list_is_no_error() -> None:
    assert read() == Manifests({})


def test_other_kinds_are_passed_over_with_a_warning() -> None:
    found = read({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}, objective())
    assert (list(found.objects), found.errors) == (BOTH[:1], ())
    assert "kind 'ConfigMap' is not read here; have: InferenceObjective" in str(found.warnings[0])


@pytest.mark.parametrize(
    ("first", "second", "priority"),
    [(VERSIONS[0], VERSIONS[0], 2), (VERSIONS[1], VERSIONS[0], 2), (VERSIONS[0], VERSIONS[1], 1)],
    ids=["the last", "the preferred group, last", "the preferred group, first"],
)
def test_of_two_objects_with_one_name_one_counts_with_a_warning(first: str, second: str, priority: int) -> None:
    found = read(objective(version=first, priority=1), objective(version=second, priority=2))
    [counts] = found.objects.values()
    assert (counts.spec.priority, len(found.warnings)) == (priority, 1)  # type: ignore[union-attr]  # an objective


def test_targets_without_a_weight_beside_weighted_ones_are_warned_of() -> None:
    found = read(rewrite({"targets": [{"modelRewrite": "a", "weight": 1}, {"modelRewrite": "b"}]}))
    assert list(found.objects) == BOTH[1:]
    assert "targets without a weight are never chosen" in found.warnings[0].rule


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "rules", "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(["InferenceObjective", "InferenceModelRewrite", "List"]) | JUNK, JUNK, JUNK)
def test_whatever_stands_in_a_file_is_read_or_refused_in_words(kind: Any, metadata: Any, spec: Any) -> None:
    raw = {"apiVersion": VERSIONS[0], "kind": kind, "metadata": metadata, "spec": spec, "items": [spec]}
    try:
        found = read_manifests(json.dumps(raw))
        told = len(found.objects) + len(found.errors) + len(found.warnings)
    except FeedError as error:
        told = len(error.args)
    assert told == 1
