"""Queries in manifests, of autoscalers and rules, ask only for what is exported."""

from __future__ import annotations

import pytest

from tests.deploy.sources import Source, sources

from .exported import exported
from .promql import labels_of
from .queries import in_object


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.name)
def test_every_series_and_label_is_exported(source: Source) -> None:
    for document in source.documents:
        for query in in_object(document.value):
            labels_of(query, exported())


def test_queries_are_found_where_autoscalers_have_them() -> None:
    scaled = {"spec": {"triggers": [{"type": "prometheus", "metadata": {"query": "sum(up)", "threshold": "1"}}]}}
    assert list(in_object(scaled)) == ["sum(up)"]
