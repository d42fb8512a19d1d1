"""probabilistic-admitter sheds what is sheddable, by chance, more the fuller the pool is."""

from __future__ import annotations

import numpy as np
import pytest

from epp import Endpoints, Refused
from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.shedding import probabilistic_admitter
from tests.scorer_kit import build

ASKED = 4000


def shed(pool: Endpoints, priority: int = -1) -> float:
    """The share that is refused."""
    asked, rng = request(priority=priority), np.random.default_rng(0)
    answers = [probabilistic_admitter(asked, pool, rng) for _ in range(ASKED)]
    return sum(answer is not None for answer in answers) / ASKED


@pytest.mark.parametrize(
    ("waiting", "kv_usage", "expected"),
    [
        ([0.0], [0.0], 0.0),
        ([1.0], [0.0], 0.2**5 * 300),
        ([0.0], [0.2], 0.25**5 * 300),
        ([1.5, 0.5], [0.0, 0.0], 0.2**5 * 300),
        ([2.0], [0.0], 1.0),
    ],
    ids=["idle", "queue", "cache", "mean", "full"],
)
def test_the_share_that_is_refused_follows_the_formula(
    waiting: list[float], kv_usage: list[float], expected: float
) -> None:
    share = shed(endpoints(waiting=waiting, kv_usage=kv_usage))
    assert share == pytest.approx(min(1.0, expected), abs=0.03)


def test_who_is_not_sheddable_is_always_admitted() -> None:
    assert shed(endpoints(waiting=[50.0], kv_usage=[1.0]), priority=0) == 0.0


def test_a_refusal_says_that_the_pool_is_saturated() -> None:
    answer = probabilistic_admitter(request(priority=-1), endpoints(waiting=[50.0]), np.random.default_rng(0))
    assert isinstance(answer, Refused)
    assert (answer.status, answer.reason) == (429, "rejected-saturated")


@pytest.mark.parametrize("name", ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"])
def test_a_setting_of_0_is_refused(name: str) -> None:
    with pytest.raises(PluginError, match=f"(?i){name}"):
        build(probabilistic_admitter, **{name: 0})
