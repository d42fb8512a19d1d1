from __future__ import annotations

from typing import Any

import pytest

from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.labels import ByLabel, ByLabelSelector, LabelSelectorFilter, header_label_affinity_scorer
from tests.scorer_kit import build

ZONES = endpoints(labels=[{"zone": "a", "gpu": "h100"}, {"zone": "b"}, {}])


@pytest.mark.parametrize(
    ("selector", "kept"),
    [
        ({}, [True, True, True]),
        ({"matchLabels": {"zone": "a"}}, [True, False, False]),
        ({"matchLabels": {"zone": "a", "gpu": "a100"}}, [False, False, False]),
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}, [True, True, False]),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}, [False, True, True]),
        ({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}, [True, False, False]),
        ({"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}, [False, True, True]),
    ],
    ids=["empty", "label", "two-labels", "in", "not-in", "exists", "does-not-exist"],
)
@pytest.mark.parametrize("target", [LabelSelectorFilter, ByLabelSelector])
def test_a_label_selector_matches_as_in_kubernetes(target: Any, selector: dict[str, Any], kept: list[bool]) -> None:
    assert list(build(target, **selector)(ZONES)) == kept


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ({"key": "zone", "operator": "In"}, "needs values"),
        ({"key": "zone", "operator": "Exists", "values": ["a"]}, "takes no values"),
        ({"key": "zone", "operator": "Equals", "values": ["a"]}, "Equals"),
        ({"key": "", "operator": "Exists"}, "key"),
    ],
    ids=["no-values", "values", "operator", "no-key"],
)
def test_a_bad_label_selector_is_refused(expression: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError, match=said):
        build(LabelSelectorFilter, matchExpressions=[expression])


def test_selectors_over_the_same_endpoints_do_not_mix() -> None:
    one, other = build(LabelSelectorFilter, matchLabels={"zone": "a"}), build(LabelSelectorFilter)
    assert list(one(ZONES)) != list(other(ZONES))


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"validValues": ["a"]}, [True, False, False]),
        ({"validValues": ["a"], "allowsNoLabel": True}, [True, False, True]),
        ({"allowsNoLabel": True}, [False, False, True]),
    ],
    ids=["values", "values-or-none", "none"],
)
def test_by_label_keeps_values_and_perhaps_the_unlabelled(settings: dict[str, Any], kept: list[bool]) -> None:
    assert list(build(ByLabel, label="zone", **settings)(ZONES)) == kept


def test_by_label_that_could_keep_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="allowsNoLabel"):
        build(ByLabel, label="zone")


@pytest.mark.parametrize("old", [ByLabel, ByLabelSelector])
def test_old_names_say_what_to_use(old: Any) -> None:
    assert "label-selector-filter" in old.deprecated


@pytest.mark.parametrize(
    ("headers", "scores"),
    [({"x-zone": "b"}, [0, 1, 0]), ({"x-zone": "z"}, [0, 0, 0]), ({"x-zone": ""}, [0, 0, 0]), ({}, [0, 0, 0])],
    ids=["match", "no-match", "empty", "absent"],
)
def test_a_header_prefers_the_endpoints_with_that_label(headers: dict[str, str], scores: list[float]) -> None:
    made = request(headers=headers)
    assert list(header_label_affinity_scorer(made, ZONES, header_name="X-Zone", label_key="zone")) == scores
