"""The reader of queries finds what the tests of dashboards and alerts rely on."""

from __future__ import annotations

import pytest

from .promql import QueryError, labels_of, variable_labels

SERIES = {
    "a_total": frozenset({"job", "instance", "model"}),
    "a_seconds_bucket": frozenset({"job", "instance", "le"}),
    "pools": frozenset({"job", "instance", "name"}),
}
GOOD = {
    "a_total": {"job", "instance", "model"},
    "sum(rate(a_total[5m]))": set(),
    "sum by (model) (rate(a_total[$__rate_interval]))": {"model"},
    "sum without (model) (a_total)": {"job", "instance"},
    "topk(3, sum by (model) (a_total))": {"model"},
    "histogram_quantile(0.9, sum by (le, job) (rate(a_seconds_bucket[5m])))": {"job"},
    'sum by (model) (a_total and on (job, instance) pools{name=~"$pool"})': {"model"},
    "time() - max by (instance) (pools)": {"instance"},
    "max by (name) (pools) > 3": {"name"},
    'label_replace(a_total, "to", "$1", "model", "(.+)")': {"job", "instance", "model", "to"},
    "sum by (job) (a_total) / on (job) group_left () sum by (job) (pools)": {"job"},
    "a_total or pools": {"job", "instance", "model", "name"},
}
BAD = {
    "sum(b_total)": "no series 'b_total'",
    'a_total{pool="x"}': "no label pool",
    "sum by (pod) (a_total)": "no label pod",
    "sum by (name) (a_total and on (job, instance) pools)": "no label name",
    "sum by (model) (sum by (job) (a_total))": "no label model",
    "histogram_quantile(0.9, sum by (job) (rate(a_seconds_bucket[5m])))": "no label le",
    "a_total and on (model) pools": "no label model",
    'label_replace(a_total, "to", "$1", "from", "(.+)")': "no label from",
    "sum(rate(a_total))": "rate",
    "sum(": "",
}


@pytest.mark.parametrize("query", GOOD)
def test_the_labels_of_a_result_are_known(query: str) -> None:
    assert labels_of(query, SERIES) == GOOD[query]


@pytest.mark.parametrize("query", BAD)
def test_what_does_not_exist_is_named(query: str) -> None:
    with pytest.raises(QueryError) as refused:
        labels_of(query, SERIES)
    assert BAD[query] in str(refused.value)


def test_a_variable_asks_for_a_label_of_its_series() -> None:
    assert "model" in variable_labels('label_values(a_total{job="x"}, model)', SERIES)
    with pytest.raises(QueryError, match="no label pod"):
        variable_labels("label_values(a_total, pod)", SERIES)
