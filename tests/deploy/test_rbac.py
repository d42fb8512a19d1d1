"""deploy/rbac: each folder gives what its flag needs, all together what a picker may ever need."""

from __future__ import annotations

import pytest

from .documents import documents
from .rights import LEADS, PODS, POOLS, REVIEWS, Right, granted
from .sources import DEPLOY, Source

RBAC = DEPLOY / "rbac"
NEEDED = {
    "account/account.yaml": PODS,
    "pool/pool.yaml": POOLS,
    "leader-election/leases.yaml": LEADS,
    "metrics-auth/reviews.yaml": REVIEWS,
}


@pytest.mark.parametrize("file", NEEDED)
def test_a_folder_gives_exactly_what_its_flag_needs(file: str) -> None:
    found = documents((RBAC / file).read_text(), file)
    assert granted("endpoint-picker", found) == NEEDED[file]


def test_together_they_are_all_a_picker_may_do() -> None:
    everything: frozenset[Right] = frozenset().union(*NEEDED.values())
    assert granted("endpoint-picker", Source("deploy/rbac/kustomization.yaml").objects) == everything


def test_who_reads_metrics_has_no_right_to_any_object() -> None:
    found = Source("deploy/rbac/kustomization.yaml").objects
    assert granted("metrics-reader", found) == frozenset()
    [role] = [one.value for one in found if one.name == "endpoint-picker-metrics-reader" and one.kind == "ClusterRole"]
    assert role["rules"] == [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
