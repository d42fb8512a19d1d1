"""The queue: who goes, who waits and what becomes of the rest. Time is moved by hand."""

from __future__ import annotations

import pytest

from epp.flow.ticket import DISPATCHED, OVER, QUEUED
from epp.types import Refused
from scorers.flow_limits import PriorityHoldbackPolicy, StaticUsageLimitPolicy
from tests.unit.flow_kit import World, band, busy, rules


def told(refusal: Refused) -> tuple[int, str, str]:
    return refusal.status, refusal.reason, refusal.message


def test_a_request_goes_at_once_where_there_is_room() -> None:
    world = World(places=2)
    assert [world.enter("a").state, world.enter("b").state, world.enter("c").state] == [DISPATCHED, DISPATCHED, QUEUED]
    assert world.heard.outcomes == [("Dispatched", "a"), ("Dispatched", "b")]


def test_a_refund_lets_the_next_one_go_at_once() -> None:
    world = busy()
    ticket = world.enter("a")
    world.now += 2.5
    world.end("busy")
    assert (ticket.state, world.sent, world.heard.waited) == (DISPATCHED, ["busy", "a"], [0.0, 2.5])


def test_as_many_go_on_one_event_as_there_is_room_for_and_no_more() -> None:
    world = busy(places=3)
    for name in "abcde":
        world.enter(name)
    for name in ("busy", "busy1"):
        world.running.pop(name).ended()
    world.flow.changed()
    assert world.sent[3:] == ["a", "b"]


def test_many_go_in_turns_of_the_loop_so_that_others_get_theirs() -> None:
    world = busy()
    for number in range(150):
        world.enter(str(number))
    world.places = 1000
    world.flow.changed()
    assert len(world.sent) == 1 + 64
    assert world.enter("late").state == QUEUED
    world.advance(0.0)
    assert world.sent[1:] == [*map(str, range(150)), "late"]


def test_a_pool_that_grows_takes_who_waits() -> None:
    world = busy()
    world.enter("a")
    world.enter("b")
    world.places = 3
    world.flow.changed()
    assert world.sent == ["busy", "a", "b"]


def test_the_more_important_one_goes_first_whenever_it_came() -> None:
    world = busy()
    world.enter("sheddable", priority=-1)
    world.enter("usual")
    world.enter("critical", priority=5)
    for name in ("busy", "critical", "usual", "sheddable"):
        world.end(name)
    assert world.sent == ["busy", "critical", "usual", "sheddable"]


def test_who_comes_while_others_wait_does_not_overtake_them() -> None:
    world = busy()
    world.enter("first")
    del world.running["busy"]
    assert world.enter("second").state == QUEUED
    assert world.sent == ["busy", "first"]


def test_an_important_one_goes_at_once_past_those_its_ceiling_does_not_hold() -> None:
    world = World(rules(limit=PriorityHoldbackPolicy(min_ceiling=0.5)), places=2)
    world.flow.objectives([5])
    world.enter("low0")
    assert world.enter("low1").state == QUEUED
    assert world.enter("high", priority=5).state == DISPATCHED


def test_a_held_band_holds_back_those_below_it_and_an_empty_one_does_not() -> None:
    def upside_down(saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        return tuple([0.5 if priority == 1 else 2.0 for priority in priorities])

    world = World(rules(band(1), limit=upside_down), places=2)
    world.enter("below")
    assert world.enter("held", priority=1).state == QUEUED
    assert world.enter("behind").state == QUEUED
    world.flow.changed()
    assert world.sent == ["below"]


def test_once_the_held_one_leaves_who_waited_behind_it_goes_soon() -> None:
    def upside_down(saturation: float, priorities: tuple[int, ...]) -> tuple[float, ...]:
        return tuple([0.5 if priority == 1 else 2.0 for priority in priorities])

    world = World(rules(band(1), limit=upside_down), places=2)
    world.enter("below")
    held = world.enter("held", priority=1)
    world.enter("behind")
    held.cancel()
    assert world.sent == ["below"]
    world.advance(0.0)
    assert world.sent == ["below", "behind"]


def test_an_unknown_negative_priority_gets_its_own_band_from_the_template() -> None:
    world = busy(rules(negative_band=band(max_requests=1)))
    world.enter("one", priority=-7)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("two", priority=-7)
    world.enter("usual")
    world.end("busy")
    assert world.sent == ["busy", "usual"]
    assert [one["priority"] for one in world.flow.state()["bands"]] == [100, 0, -7]


def test_a_band_that_nothing_speaks_for_goes_after_ten_idle_minutes() -> None:
    world = World(rules(band(3)))
    world.flow.objectives([5])
    world.enter("a", priority=9)
    world.end("a")
    world.advance(599.0)
    assert [one["priority"] for one in world.flow.state()["bands"]] == [9, 5, 3, 0]
    world.flow.objectives([])
    world.advance(2.0)
    assert [one["priority"] for one in world.flow.state()["bands"]] == [5, 3, 0]
    world.advance(600.0)
    assert [one["priority"] for one in world.flow.state()["bands"]] == [3, 0]


def test_of_many_bands_that_nothing_speaks_for_the_latest_stay() -> None:
    world = busy()
    world.flow.objectives([1])
    world.enter("a", priority=1)
    for priority in range(2, 1000):
        world.advance(0.01)
        world.flow.objectives([priority])
    found = [one["priority"] for one in world.flow.state()["bands"]]
    assert found == [*range(999, 948, -1), 1, 0]


def test_a_band_that_is_used_stays() -> None:
    world = busy()
    for _ in range(10):
        world.enter("a", priority=9).cancel()
        world.advance(590.0)
    assert 9 in [one["priority"] for one in world.flow.state()["bands"]]


# At the door.


def test_a_full_band_refuses() -> None:
    world = busy(rules(band(0, max_requests=1)))
    world.enter("a")
    with pytest.raises(Refused) as refusal:
        world.enter("b")
    message = "request rejected pre-queue: queue at capacity"
    assert told(refusal.value) == (429, "rejected-saturated", message)
    assert world.heard.outcomes[-1] == ("RejectedCapacity", "b")
    assert world.waiting == ["a"]


def test_a_band_full_of_bytes_refuses() -> None:
    world = busy(rules(band(0, max_bytes=100)))
    world.enter("a", size=60)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("b", size=41)
    assert world.enter("c", size=40).state == QUEUED


def test_a_full_queue_refuses_whatever_the_bands_allow() -> None:
    world = busy(rules(max_requests=2))
    world.enter("a")
    world.enter("b", priority=1)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("c", priority=2)


def test_a_queue_full_of_bytes_refuses() -> None:
    world = busy(rules(max_bytes=100))
    world.enter("a", size=100)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("b", size=1)


def test_a_full_queue_before_an_empty_pool_says_that_there_are_no_endpoints() -> None:
    world = World(rules(max_requests=1), endpoints=0)
    world.enter("a")
    with pytest.raises(Refused) as refusal:
        world.enter("b")
    message = "no endpoints available: request rejected pre-queue: no endpoints available"
    assert told(refusal.value) == (503, "rejected-no-endpoints", message)
    assert world.heard.outcomes[-1] == ("RejectedNoEndpoints", "b")


def test_a_request_larger_than_the_queue_goes_if_it_need_not_wait() -> None:
    world = World(rules(max_bytes=10, max_requests=1))
    assert world.enter("a", size=11).state == DISPATCHED
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("b", size=11)


def test_a_full_queue_sends_sheddable_ones_away_for_a_more_important_one() -> None:
    world = busy(rules(max_requests=4))
    for name, priority in (("a", -1), ("b", -1), ("c", -2), ("d", 0)):
        world.enter(name, priority=priority)
    world.enter("usual")
    assert (world.waiting, list(world.refused)) == (["d", "usual", "a", "b"], ["c"])
    world.enter("usual2")
    assert list(world.refused) == ["c", "b"]
    assert told(world.refused["c"])[:2] == (429, "evicted-queue-pressure")
    assert world.heard.outcomes[-2:] == [("EvictedOther", "c"), ("EvictedOther", "b")]


def test_as_many_are_sent_away_as_the_bytes_ask_for() -> None:
    world = busy(rules(max_bytes=100))
    for name, size in (("a", 40), ("b", 30), ("c", 30)):
        world.enter(name, priority=-1, size=size)
    world.enter("usual", size=50)
    assert (world.waiting, sorted(world.refused)) == (["usual", "a"], ["b", "c"])


def test_nobody_is_sent_away_if_that_would_not_do() -> None:
    world = busy(rules(max_bytes=100))
    world.enter("a", priority=-1, size=40)
    world.enter("b", size=60)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("usual", size=50)
    assert (sorted(world.waiting), world.refused) == (["a", "b"], {})


def test_nobody_is_sent_away_for_an_equal() -> None:
    world = busy(rules(max_requests=1))
    world.enter("a", priority=-1)
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("b", priority=-1)


def test_a_band_full_by_itself_sends_nobody_away() -> None:
    world = busy(rules(band(0, max_requests=1), max_requests=2))
    world.enter("a", priority=-1)
    world.enter("b")
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("c")
    assert world.refused == {}


def test_a_refusal_says_when_another_try_may_do_as_far_as_it_is_known() -> None:
    world = busy(rules(band(0, max_requests=2)))
    world.now += 11.0
    world.enter("a")
    world.enter("b")
    with pytest.raises(Refused) as refusal:
        world.enter("c")
    assert refusal.value.retry_after_s is None
    world.end("busy")
    world.now += 4.0
    world.enter("d")
    with pytest.raises(Refused) as refusal:
        world.enter("e")
    # One went in the last window of 5 s, two are ahead.
    assert refusal.value.retry_after_s == pytest.approx(10.0)


# How long.


def test_a_request_expires_exactly_when_its_time_is_up() -> None:
    world = busy(rules(ttl_s=60.0))
    world.enter("a")
    world.advance(30.0)
    world.enter("b")
    world.advance(29.999)
    assert world.refused == {}
    world.advance(0.001)
    assert list(world.refused) == ["a"]
    message = "request timed out in queue: request evicted from queue: request TTL expired"
    assert told(world.refused["a"]) == (429, "rejected-ttl-expired", message)
    assert world.heard.outcomes[-1] == ("EvictedTTL", "a")
    assert world.heard.waited[-1] == pytest.approx(60.0)
    world.advance(30.0)
    assert list(world.refused) == ["a", "b"]


def test_before_an_empty_pool_another_budget_counts() -> None:
    world = World(rules(ttl_s=60.0, empty_ttl_s=5.0), endpoints=0)
    world.enter("a")
    world.advance(5.0)
    message = (
        "request timed out in queue and no endpoints are available: request evicted from queue: no endpoints available"
    )
    assert told(world.refused["a"]) == (503, "rejected-no-endpoints", message)
    assert world.heard.outcomes == [("EvictedNoEndpoints", "a")]


def test_the_budget_begins_anew_when_the_pool_becomes_empty_and_when_it_ceases_to_be() -> None:
    world = busy(rules(ttl_s=10.0, empty_ttl_s=20.0))
    world.enter("a")
    world.advance(9.0)
    world.scale(0)
    world.advance(19.0)
    world.scale(1)
    world.advance(9.99)
    assert world.refused == {}
    world.advance(0.01)
    assert told(world.refused["a"])[:2] == (429, "rejected-ttl-expired")


@pytest.mark.parametrize("endpoints", [0, 1])
def test_without_a_budget_a_request_waits_for_ever(endpoints: int) -> None:
    world = busy(rules(ttl_s=0.0, empty_ttl_s=0.0))
    world.enter("a")
    world.scale(endpoints)
    world.advance(1e6)
    assert world.waiting == ["a"]


def test_requests_wait_for_the_first_endpoint_and_go_when_it_comes() -> None:
    world = World(rules(limit=StaticUsageLimitPolicy(threshold=2.0)), endpoints=0)
    world.enter("a")
    world.flow.changed()
    assert world.sent == []
    world.scale(1)
    assert world.sent == ["a"]


# The end.


def test_who_is_cancelled_is_out_at_once_and_hears_nothing() -> None:
    world = busy()
    ticket = world.enter("a")
    ticket.cancel()
    ticket.cancel()
    ticket.ended()
    assert (ticket.state, world.waiting, world.refused) == (OVER, [], {})
    assert world.heard.outcomes[1:] == [("EvictedContextCancelled", "a")]
    world.end("busy")
    assert world.sent == ["busy"]


def test_a_cancelled_request_leaves_its_place_in_the_queue() -> None:
    world = busy(rules(max_requests=1))
    world.enter("a").cancel()
    assert world.enter("b").state == QUEUED


def test_the_end_of_a_waiting_request_is_its_cancellation() -> None:
    world = busy()
    world.enter("a").ended()
    assert world.heard.outcomes[1:] == [("EvictedContextCancelled", "a")]


def test_at_shutdown_who_waits_is_refused_and_so_is_who_comes() -> None:
    world = busy()
    world.enter("a")
    world.flow.close()
    with pytest.raises(Refused) as refusal:
        world.enter("b")
    why = "flow controller is not running"
    assert told(world.refused["a"]) == (
        503,
        "rejected-shutting-down",
        f"flow controller shutting down: request evicted from queue: {why}",
    )
    assert told(refusal.value)[2] == f"flow controller shutting down: request rejected pre-queue: {why}"
    assert world.heard.outcomes[1:] == [("EvictedOther", "a"), ("RejectedOther", "b")]


def test_after_shutdown_nothing_rings() -> None:
    world = busy(rules(ttl_s=60.0))
    world.enter("a")
    world.flow.close()
    world.advance(1e4)
    assert len(world.heard.outcomes) == 2


@pytest.mark.parametrize("flows", [1, 500])
def test_those_who_come_and_are_cancelled_leave_nothing_behind(flows: int) -> None:
    world = busy(rules(ttl_s=0.0))
    world.enter("stays")
    (usual,) = [one for one in world.flow._bands if one.priority == 0]
    usual.best()
    for number in range(1000):
        world.enter(str(number), fairness_id=str(number % flows)).cancel()
        world.enter(str(number), fairness_id="a").cancel()
    assert list(usual.flows) == ["a"]
    assert len(usual.flows["a"]._keys) + len(usual.flows["a"]._late) + len(usual._heads or ()) < 100


# Reload.


def test_other_policies_take_over_who_waits() -> None:
    def last_first(item: object) -> float:
        return -item.queued_at  # type: ignore[attr-defined, no-any-return]

    world = busy()
    for name in "abc":
        world.now += 1.0
        world.enter(name)
    world.flow.use(rules(default=band(ordering=last_first)))
    for name in ("busy", "c", "b", "a"):
        world.end(name)
    assert world.sent == ["busy", "c", "b", "a"]


def test_lower_limits_send_nobody_away() -> None:
    world = busy()
    world.enter("a")
    world.enter("b")
    world.flow.use(rules(max_requests=1))
    assert world.waiting == ["a", "b"]
    with pytest.raises(Refused, match="queue at capacity"):
        world.enter("c")


def test_another_budget_counts_for_who_waits() -> None:
    world = busy(rules(ttl_s=60.0))
    world.enter("a")
    world.advance(5.0)
    world.flow.use(rules(ttl_s=7.0))
    world.advance(2.0)
    assert list(world.refused) == ["a"]


def test_a_higher_ceiling_lets_who_waits_go_at_once() -> None:
    world = busy()
    world.enter("a")
    world.flow.use(rules(limit=StaticUsageLimitPolicy(threshold=1.5)))
    assert world.sent == ["busy", "a"]


# While one goes.


def test_who_comes_while_another_one_goes_waits_its_turn_and_is_not_forgotten() -> None:
    world = busy(places=3)
    first = world.enter("first")
    charge = first.go

    def go() -> None:
        charge()
        world.enter("nested")

    first.go = go
    for name in ("busy", "busy1"):
        world.running.pop(name).ended()
    world.enter("entering")
    assert world.sent[3:] == ["first", "entering"]
    world.running.pop("busy2").ended()
    world.advance(0.0)
    assert world.sent[3:] == ["first", "entering", "nested"]


def test_a_bug_in_one_that_goes_does_not_hold_up_the_others() -> None:
    world = busy()

    def go() -> None:
        raise RuntimeError("a bug")

    world.enter("first").go = go
    world.enter("second")
    with pytest.raises(RuntimeError, match="a bug"):
        world.end("busy")
    world.advance(0.05)
    assert world.sent == ["busy", "second"]


def test_who_hears_of_somebody_elses_bug_at_the_door_does_not_wait() -> None:
    world = busy()

    def go() -> None:
        raise RuntimeError("a bug")

    world.enter("first").go = go
    world.running.pop("busy").ended()
    world.places = 1
    with pytest.raises(RuntimeError, match="a bug"):
        world.enter("second")
    world.advance(1.0)
    assert (world.waiting, world.sent) == ([], ["busy"])
    assert world.heard.outcomes[-2:] == [("Dispatched", "first"), ("RejectedOther", "second")]


def test_the_state_tells_who_waits_where() -> None:
    world = busy(rules(band(0, max_requests=7), max_requests=9))
    world.enter("a", size=5)
    world.now += 3.0
    world.enter("b", size=6)
    world.enter("c", fairness_id="z", size=7)
    state = world.flow.state()
    assert {name: state[name] for name in ("requests", "bytes", "max_requests", "max_bytes", "saturation")} == {
        "requests": 3,
        "bytes": 18,
        "max_requests": 9,
        "max_bytes": None,
        "saturation": 1.0,
    }
    (usual,) = [one for one in state["bands"] if one["priority"] == 0]
    assert (usual["ceiling"], usual["requests"], usual["bytes"], usual["oldest_wait_s"]) == (1.0, 3, 18, 3.0)
    assert usual["longest_flows"] == [
        {"fairness_id": "a", "requests": 2, "bytes": 11, "head": "a", "head_waited_s": 3.0},
        {"fairness_id": "z", "requests": 1, "bytes": 7, "head": "c", "head_waited_s": 0.0},
    ]
