"""Sheddable requests in flight end where more important ones wait for their places. Time is moved by hand."""

from __future__ import annotations

from typing import Any

from epp import Band, Flow
from epp.flow.eviction import UNCONFIRMED_S
from scorers.flow_limits import StaticUsageLimitPolicy
from tests.unit.flow_kit import World, band, rules


def full(*priorities: int, **settings: Any) -> World:
    """A world whose places are taken by requests r0, r1, … of these priorities, in this order."""
    world = World(rules(evict=True, **settings), places=len(priorities))
    for number, priority in enumerate(priorities):
        world.now += 1.0
        world.enter(f"r{number}", priority=priority)
    assert len(world.running) == len(priorities)
    return world


def test_the_least_important_newest_sheddable_request_ends_for_one_that_waits() -> None:
    world = full(-1, -2, -2, 0)
    world.enter("usual")
    assert world.told_to_end == ["r2"]
    assert world.heard.evictions == [("r2", 1, 1)]
    world.end("r2")
    assert world.sent[-1] == "usual"


def test_without_the_setting_nobody_ends() -> None:
    world = full(-1)
    world.flow.use(rules(evict=False))
    world.enter("usual")
    assert world.told_to_end == []


def test_turned_on_later_it_ends_requests_sent_before() -> None:
    world = World(rules(evict=False))
    world.enter("r0", priority=-1)
    world.enter("usual")
    world.flow.use(rules(evict=True))
    assert world.told_to_end == ["r0"]


def test_nobody_ends_for_an_equal_or_for_a_less_important_one() -> None:
    world = full(-2, 0)
    world.enter("equal", priority=-2)
    world.enter("less", priority=-3)
    assert world.told_to_end == []


def test_only_sheddable_requests_end() -> None:
    world = full(0, 1)
    world.enter("critical", priority=5)
    assert world.told_to_end == []


def test_a_sheddable_request_that_is_more_important_than_another_one_gets_its_place() -> None:
    world = full(-2)
    world.enter("better", priority=-1)
    assert world.told_to_end == ["r0"]


def test_a_request_that_cannot_be_ended_is_passed_over() -> None:
    world = full(-1, -1)
    world.running["r1"].evict = None
    world.enter("usual")
    assert world.told_to_end == ["r0"]


def test_a_request_that_turns_out_not_to_be_endable_is_not_waited_for() -> None:
    world = full(-1, -1)
    world.running["r1"].evict = lambda: False
    world.enter("usual")
    assert (world.told_to_end, world.heard.ends) == ([], [("r1", 0.0, False, 0)])
    world.advance(0.01)
    assert world.told_to_end == ["r0"]


def test_the_gap_to_the_ceiling_says_how_many_end_but_two_at_most_at_once() -> None:
    world = full(-1, -1, -1, -1)
    world.places = 2
    world.enter("usual")
    assert world.told_to_end == ["r3", "r2"]
    # 4 in flight make a saturation of 2: each stands for 0.5, the gap is 1.
    assert world.heard.evictions == [("r3", 2, 2), ("r2", 2, 2)]


def test_more_may_be_wanted_than_end_at_once() -> None:
    world = full(*[-1] * 6)
    world.places = 2
    world.enter("usual")
    assert world.heard.evictions == [("r5", 4, 2), ("r4", 4, 2)]


def test_nothing_more_ends_until_all_have_and_it_shows() -> None:
    world = full(*[-1] * 6, evict_grace_s=0.5)
    world.places = 2
    world.enter("usual")
    world.end("r5")
    world.enter("usual2")
    assert world.told_to_end == ["r5", "r4"]
    world.end("r4")
    world.advance(0.499)
    assert world.told_to_end == ["r5", "r4"]
    world.advance(0.001)
    assert world.told_to_end == ["r5", "r4", "r3", "r2"]


def test_how_long_an_end_took_is_told() -> None:
    world = full(*[-1] * 4)
    world.places = 2
    world.enter("usual")
    world.now += 0.25
    world.end("r2")
    world.now += 0.5
    world.end("r3")
    assert world.heard.ends == [("r2", 0.25, True, 1), ("r3", 0.75, True, 0)]


def test_an_end_that_nobody_confirms_is_not_waited_for_for_ever() -> None:
    world = full(-1, -1)
    world.enter("usual")
    world.advance(UNCONFIRMED_S)
    assert world.heard.ends == [("r1", 10.0, False, 0)]
    world.advance(0.01)
    assert world.told_to_end == ["r1", "r0"]
    world.end("r1")
    assert world.heard.ends == [("r1", 10.0, False, 0)]


def test_a_victim_that_ends_while_it_is_told_is_confirmed_at_once() -> None:
    world = full(-1)
    world.running["r0"].evict = lambda: world.end("r0")
    world.enter("usual")
    world.advance(0.01)
    assert (world.sent[-1], world.heard.ends) == ("usual", [("r0", 0.0, True, 0)])


def test_a_sheddable_request_that_is_over_is_no_victim() -> None:
    world = full(-1, 0)
    world.running.pop("r0").ended()
    world.places = 1
    world.enter("usual")
    assert world.told_to_end == []


def test_a_band_whose_ceiling_is_zero_ends_nobody_and_the_next_one_may() -> None:
    def ceilings(saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        return tuple([0.0 if priority == 5 else 1.0 for priority in priorities])

    world = World(rules(band(5), limit=ceilings, evict=True))
    world.enter("r0", priority=-1)
    world.enter("never", priority=5)
    assert world.told_to_end == []
    world.enter("usual")
    assert world.told_to_end == ["r0"]


def test_a_band_that_its_own_policy_holds_back_ends_nobody() -> None:
    class Nobody:
        def turn(self, band: Band, now: float) -> Flow | None:
            return None

    def ceilings(saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        return tuple([2.0 if priority == 5 else 1.0 for priority in priorities])

    world = World(rules(band(5, fairness=Nobody()), limit=ceilings, evict=True))
    world.enter("r0", priority=-1)
    world.enter("held", priority=5)
    world.enter("less", priority=-2)
    assert world.told_to_end == []


def test_nobody_ends_while_the_pool_is_empty() -> None:
    world = full(-1)
    world.scale(0)
    world.enter("usual")
    assert world.told_to_end == []


def test_the_most_important_band_that_waits_is_what_counts() -> None:
    world = full(-1, limit=StaticUsageLimitPolicy(threshold=1.0))
    world.enter("less", priority=-2)
    assert world.told_to_end == []
    world.enter("usual")
    assert world.told_to_end == ["r0"]


def test_the_state_tells_how_many_are_in_flight_and_ending() -> None:
    world = full(-1, -1, 0)
    world.enter("usual")
    assert world.flow.state()["in_flight"] == {"requests": 3, "sheddable": 1, "ending": 1}
