from __future__ import annotations

import numpy as np
import pytest

from epp import Endpoints
from epp.testing import request
from scorers.no_hit_lru import NoHitLruScorer
from tests.scorer_kit import build, decided, table


def scores(scorer: NoHitLruScorer, made: Endpoints) -> list[float]:
    return list(scorer(request(), made, np.zeros(len(made))))


def use(scorer: NoHitLruScorer, made: Endpoints, *names: str) -> None:
    for name in names:
        asked = request()
        scorer(asked, made, np.zeros(len(made)))
        scorer.picked(asked, decided(asked, made, {"default": name}))


def test_memory_follows_endpoints_to_other_rows() -> None:
    scorer = NoHitLruScorer()
    use(scorer, table("a", "b", "c"), "a", "b", "c")
    assert scores(scorer, table("c", "a", "b")) == [0, 1, 0.5]


def test_an_endpoint_that_left_comes_back_unused() -> None:
    scorer = NoHitLruScorer()
    use(scorer, table("a", "b"), "b", "a")
    scores(scorer, table("b"))
    assert scores(scorer, table("a", "b")) == [1, 0]


def test_only_so_many_uses_are_remembered() -> None:
    scorer, made = build(NoHitLruScorer, lruSize=2), table("a", "b", "c", "d")
    use(scorer, made, "a", "b", "c")
    assert scores(scorer, made) == pytest.approx([1, 1 / 3, 0, 2 / 3])


def test_candidates_are_ordered_by_the_whole_memory() -> None:
    scorer, made = NoHitLruScorer(), table("a", "b", "c", "d")
    use(scorer, made, "a", "b", "c", "d")
    assert list(scorer(request(), made.take(np.array([1, 3])), np.zeros(2))) == [0, 0]


def test_a_pick_of_another_request_is_not_a_use() -> None:
    scorer, made = NoHitLruScorer(), table("a", "b")
    scorer(request(), made, np.zeros(2))
    other = request()
    scorer.picked(other, decided(other, made, {"default": "a"}))
    assert scores(scorer, made) == [1, 0]


def test_ignored_settings_are_accepted_with_a_warning() -> None:
    scorer = build(NoHitLruScorer, prefixPluginType="prefix-cache-scorer", lruSize=-1)
    assert "prefixMatchInfoProducerName" in scorer.warnings[0]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_any_number_of_endpoints_is_scored(n: int) -> None:
    assert len(scores(NoHitLruScorer(), table(*"abcde"[:n]))) == n
