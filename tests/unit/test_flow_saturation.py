"""From what a detector says of each endpoint to one number, and who is refused by it where nobody waits."""

from __future__ import annotations

import numpy as np
import pytest

from epp import Column, Endpoints, testing
from epp.flow.admission import admit
from epp.flow.saturation import Saturation
from epp.scheduler import Bound
from epp.types import Refused


def detector(*each: float) -> Bound:
    return Bound("d", lambda endpoints: np.array(each[: len(endpoints)]), ("endpoints",))


def of(endpoints: Endpoints, *each: float) -> Saturation:
    return Saturation(lambda: endpoints, detector(*each), lambda plugin, error: None)


def roles(*names: str) -> Endpoints:
    return testing.endpoints(labels=[{"llm-d.ai/role": name} if name else {} for name in names])


def test_a_pool_without_endpoints_is_full() -> None:
    assert of(testing.endpoints())() == 1.0
    assert of(testing.endpoints()).stages() == {"effective": 1.0}


def test_it_is_the_mean() -> None:
    assert of(roles("", ""), 0.5, 1.5)() == 1.0


def test_the_fuller_stage_counts() -> None:
    pool = of(roles("prefill", "decode", "prefill-decode", "encode"), 0.1, 0.8, 0.6, 9.0)
    assert pool.stages() == {
        "prefill": pytest.approx(0.35),
        "decode": pytest.approx(0.7),
        "effective": pytest.approx(0.7),
    }
    assert pool() == pytest.approx(0.7)


def test_where_nobody_has_a_stage_all_count() -> None:
    assert of(roles("encode", "encode"), 0.2, 0.4)() == pytest.approx(0.3)


@pytest.mark.parametrize("answer", [None, np.zeros(3), np.array([np.nan]), np.array([-1.0]), "full"])
def test_a_detector_that_gives_nonsense_is_told_of_and_lets_all_go(answer: object) -> None:
    told: list[str] = []
    bound = Bound("d", lambda endpoints: answer, ("endpoints",))
    assert Saturation(lambda: roles(""), bound, lambda plugin, error: told.append(plugin))() == 0.0
    assert told == ["d"]


def test_one_that_raises_too() -> None:
    def broken(endpoints: Endpoints) -> Column:
        raise ZeroDivisionError

    told: list[str] = []
    bound = Bound("d", broken, ("endpoints",))
    assert Saturation(lambda: roles(""), bound, lambda plugin, error: told.append(repr(error)))() == 0.0
    assert told == ["ZeroDivisionError()"]


def test_sheddable_requests_are_refused_while_their_candidates_are_full() -> None:
    endpoints = roles("", "")
    with pytest.raises(Refused) as raised:
        admit(testing.request(priority=-1), endpoints, of(endpoints, 1.0, 1.0))
    refusal = raised.value
    assert (refusal.status, refusal.reason) == (429, "rejected-saturated")
    assert refusal.message == "system saturated, sheddable request dropped"


@pytest.mark.parametrize(("priority", "each"), [(0, 9.0), (5, 9.0), (-1, 0.99)])
def test_others_pass(priority: int, each: float) -> None:
    endpoints = roles("")
    admit(testing.request(priority=priority), endpoints, of(endpoints, each))


def test_without_candidates_the_decision_refuses() -> None:
    empty = testing.endpoints()
    admit(testing.request(priority=-1), empty, of(empty))
