"""The API server in tests: label selectors, as "Labels and Selectors" of the Kubernetes docs tells them."""

from __future__ import annotations

import pytest

from tests.apiserver import ApiError
from tests.apiserver.selectors import labels

OBJECTS = {
    "plain": {},
    "dev": {"environment": "dev", "tier": "frontend"},
    "qa": {"environment": "qa", "tier": "backend"},
    "prod": {"environment": "production", "example.com/size": "12", "empty": ""},
}


@pytest.mark.parametrize(
    ("selector", "wanted"),
    [
        ("", ["plain", "dev", "qa", "prod"]),
        ("environment=qa", ["qa"]),
        ("environment==qa", ["qa"]),
        ("environment = qa", ["qa"]),
        ("environment!=qa", ["plain", "dev", "prod"]),
        ("environment in (production, qa)", ["qa", "prod"]),
        ("environment in(qa)", ["qa"]),
        ("tier notin (frontend,backend)", ["plain", "prod"]),
        ("environment", ["dev", "qa", "prod"]),
        ("!environment", ["plain"]),
        ("! environment", ["plain"]),
        ("environment,environment notin (frontend)", ["dev", "qa", "prod"]),
        ("tier in (frontend, backend),environment!=dev", ["qa"]),
        ("example.com/size>11", ["prod"]),
        ("example.com/size<12", []),
        ("environment>1", []),
        ("empty=", ["prod"]),
        ("empty in (,x)", ["prod"]),
        ("tier=frontend,tier=backend", []),
    ],
)
def test_label_selectors(selector: str, wanted: list[str]) -> None:
    test = labels(selector)
    selected = [name for name, found in OBJECTS.items() if test is None or test({"metadata": {"labels": found}})]
    assert selected == wanted


def test_an_object_without_labels_is_one_with_none() -> None:
    absent = labels("!app")
    assert absent is not None
    assert absent({"metadata": {}})


@pytest.mark.parametrize("selector", ["=a", "a=b=c", "a in", "a in b", "a b", "a=b,", "a>b", "a=-b", "in (a)"])
def test_a_selector_that_cannot_be_read_is_refused(selector: str) -> None:
    with pytest.raises(ApiError, match="unable to parse requirement") as refused:
        labels(selector)
    assert refused.value.code == 400
