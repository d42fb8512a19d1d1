"""Who leads, in a world of several candidates, lost messages and stopped processes."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp.kube.lease import Claim, Lease, Timings
from epp.kube.lease_elector import Elector, Read, Wait
from tests.unit.lease_world import TIMINGS, Network, World

ABSENT = Lease(exists=False)
OTHER = Lease("other", 15, "then", "then", 3, version="7")


def elector() -> Elector:
    return Elector("me", Timings(), lambda: 0.0)


def seeing(lease: Lease, now: float = 100.0) -> Elector:
    one = elector()
    assert one.step(now) == Read()
    one.saw(lease, now, asked_at=now)
    return one


def leading(now: float = 100.0) -> Elector:
    one = seeing(Lease(version="7"), now)
    one.wrote(Lease("me", 15, version="8"), now, sent_at=now)
    return one


def town(*names: str, network: Network | None = None) -> World:
    """With a leader, the first, and followers that know it."""
    world = World(network)
    world.add(names[0])
    world.when(lambda: world.leaders == [names[0]])
    for name in names[1:]:
        world.add(name)
    world.run(world.now + 20)
    assert world.leaders == [names[0]]
    return world


def test_the_lease_is_created_where_there_is_none() -> None:
    assert seeing(ABSENT).step(100) == Claim(ABSENT, "me", 15)


def test_a_lease_nobody_holds_is_taken_at_once() -> None:
    free = Lease("", 1, transitions=3, version="7")
    assert seeing(free).step(100) == Claim(free, "me", 15, transitions=4)


def test_a_holder_lives_until_its_lease_was_not_changed_for_so_long_by_our_clock() -> None:
    one = seeing(OTHER)
    one.failed(114.0)
    assert isinstance(one.step(114.9), Wait)
    assert one.step(116.0) == Claim(OTHER, "me", 15, transitions=4)


@pytest.mark.parametrize(
    ("told", "waits_s"), [(None, 15), (5, 15), (60, 60)], ids=["nonsense", "shorter than ours", "longer than ours"]
)
def test_the_longer_of_their_duration_and_ours_counts(told: int | None, waits_s: float) -> None:
    one = seeing(replace(OTHER, duration_s=told))
    for second in range(1, int(waits_s)):
        one.saw(replace(OTHER, duration_s=told), 100.0 + second)
    assert isinstance(one.step(100 + waits_s - 0.1), Wait)
    assert isinstance(one.step(100 + waits_s), Claim)


def test_a_renewal_prolongs_a_holder_and_a_new_label_does_not() -> None:
    one = seeing(OTHER)
    one.saw(replace(OTHER, version="8", metadata=b"{}"), 114.0)
    assert isinstance(one.step(115.0), Claim)
    one.saw(replace(OTHER, version="9", renewed="later"), 115.0)
    assert isinstance(one.step(129.9), Read)
    one.saw(replace(OTHER, version="9", renewed="later"), 129.9, asked_at=129.9)
    assert isinstance(one.step(130.0), Claim)


def test_a_write_names_the_newest_version_though_only_a_label_has_changed() -> None:
    one = seeing(OTHER)
    one.saw(replace(OTHER, version="8"), 114.0)
    step = one.step(115.0)
    assert isinstance(step, Claim)
    assert step.over.version == "8"


def test_without_news_the_lease_is_read_again() -> None:
    one = seeing(OTHER)
    assert one.step(100.0) == Wait(103.0)
    assert one.step(103.0) == Read()


def test_a_leader_renews_every_retry_period_and_keeps_when_it_began() -> None:
    one = leading()
    mine = Lease("me", 15, acquired="then", transitions=4, version="8")
    one.saw(mine, 101.0)
    assert one.step(101.0) == Wait(102.0)
    assert one.step(102.0) == Claim(mine, "me", 15, 4, "then")


def test_leading_counts_from_before_the_write_was_sent_and_ends_by_itself() -> None:
    one = seeing(Lease(version="7"))
    one.wrote(Lease("me", 15, version="8"), 104.0, sent_at=100.0)
    assert [one.leading(now) for now in (104.0, 109.9, 110.0, 1e9)] == [True, True, False, False]


def test_an_answer_that_comes_after_the_deadline_gives_no_lead() -> None:
    one = seeing(Lease(version="7"))
    one.wrote(Lease("me", 15, version="8"), 111.0, sent_at=100.0)
    assert not one.leading(111.0)
    assert isinstance(one.step(111.0), Claim)


def test_who_sees_another_holder_leads_no_more() -> None:
    one = leading()
    one.saw(replace(OTHER, version="9"), 101.0)
    assert not one.leading(101.0)
    assert isinstance(one.step(102.0), Wait)


def test_after_a_conflict_the_lease_is_read_at_once_and_renewed_at_once_if_it_is_still_ours() -> None:
    one = leading()
    one.failed(102.0, conflict=True)
    assert (one.leading(102.0), one.step(102.0)) == (True, Read())
    edited = Lease("me", 15, version="9")
    one.saw(edited, 102.1, asked_at=102.0)
    assert one.step(102.1) == Claim(edited, "me", 15)


def test_conflicts_in_a_row_are_not_repeated_at_once() -> None:
    one = leading()
    one.failed(102.0, conflict=True)
    one.failed(102.1, conflict=True)
    assert one.step(102.1) == Wait(104.1)


def test_after_a_failure_it_waits_for_the_retry_period_and_a_bit() -> None:
    one = Elector("me", Timings(), lambda: 1.0)
    one.failed(100.0)
    assert one.step(100.0) == Wait(102.4)
    assert one.step(102.4) == Read()


def test_a_late_event_of_the_watch_changes_nothing() -> None:
    one = leading()
    one.saw(replace(OTHER, version="7"), 101.0)
    assert one.leading(101.0)


def test_an_answer_older_than_what_the_watch_told_meanwhile_is_ignored() -> None:
    one = seeing(OTHER)
    one.saw(Lease("", 1, version="9"), 103.5)
    one.saw(OTHER, 104.0, asked_at=103.0)
    assert isinstance(one.step(104.0), Claim)


def test_versions_that_went_back_are_believed_when_read() -> None:
    """etcd was restored from a backup."""
    one = seeing(replace(OTHER, version="900"))
    one.saw(Lease("", 1, version="7"), 103.1, asked_at=103.0)
    assert isinstance(one.step(103.1), Claim)


def test_an_accepted_write_that_somebody_has_overwritten_gives_no_lead() -> None:
    one = seeing(Lease(version="7"))
    one.saw(replace(OTHER, version="9"), 100.5)
    one.wrote(Lease("me", 15, version="8"), 101.0, sent_at=100.0)
    assert (one.leading(101.0), one.step(101.0)) == (False, Read())


def test_a_leader_whose_lease_is_deleted_leads_on_and_creates_it_at_once() -> None:
    one = leading()
    one.saw(Lease(exists=False, version="9"), 100.5)
    assert one.leading(100.5)
    assert one.step(100.5) == Claim(Lease(exists=False, version="9"), "me", 15)


def test_a_follower_lets_a_holder_live_out_its_time_though_the_lease_is_deleted() -> None:
    one = seeing(OTHER)
    gone = Lease(exists=False, version="9")
    one.saw(gone, 103.0)
    assert isinstance(one.step(103.0), Wait)
    one.saw(gone, 114.9, asked_at=114.9)
    assert one.step(115.0) == Claim(gone, "me", 15)


def test_who_resigns_leads_no_more_and_gives_up_what_it_holds() -> None:
    one = leading()
    assert one.resign() == Claim(Lease("me", 15, version="8"), "", 1)
    assert not one.leading(100.0)


def test_who_holds_nothing_has_nothing_to_give_up() -> None:
    assert seeing(OTHER).resign() is None


def test_a_released_lease_is_taken_within_two_messages() -> None:
    world = town("a", "b", "c")
    world.candidates[0].release()
    assert world.when(lambda: bool(world.leaders)) <= 0.01 + 4 * world.network.slowest_s
    assert world.lease.holder in {"b", "c"}


def test_a_released_lease_is_taken_without_a_watch_too() -> None:
    world = town("a", "b", network=Network(watch_lost=1.0))
    world.candidates[0].release()
    assert world.when(lambda: world.leaders == ["b"]) <= 1.5 * TIMINGS.retry_s + 0.2


@pytest.mark.parametrize("watch_lost", [0.0, 1.0], ids=["watching", "polling"])
def test_a_dead_leader_is_followed_once_its_lease_has_run_out(watch_lost: float) -> None:
    world = town("a", "b", "c", network=Network(watch_lost=watch_lost))
    world.candidates[0].alive = False
    taken_s = world.when(lambda: bool(world.leaders))
    assert TIMINGS.duration_s - TIMINGS.retry_s <= taken_s <= TIMINGS.duration_s + 1.5 * TIMINGS.retry_s + 0.1


def test_a_leader_cut_off_stops_leading_before_another_begins_and_competes_again() -> None:
    world = town("a", "b")
    cut = world.candidates[0]
    cut.cut_off = True
    world.when(lambda: not world.leaders)
    assert not cut.leading
    world.when(lambda: world.leaders == ["b"])
    cut.cut_off = False
    world.run(world.now + 60)
    assert world.leaders == ["b"]
    world.candidates[1].release()
    world.when(lambda: world.leaders == ["a"])


def test_a_leader_that_was_stopped_leads_no_more_when_it_wakes() -> None:
    world = town("a", "b")
    world.candidates[0].stop_for(30.0)
    world.when(lambda: world.leaders == ["b"])
    world.run(world.now + 60)
    assert world.leaders == ["b"]


def test_a_name_somebody_wrote_into_the_lease_costs_one_lease_duration() -> None:
    world = town("a", "b")
    world.change(replace(world.lease, holder="nobody knows", duration_s=None))
    assert world.when(lambda: not world.leaders) <= world.network.slowest_s
    assert world.when(lambda: bool(world.leaders)) == pytest.approx(TIMINGS.duration_s, abs=4.0)


trouble = st.tuples(
    st.sampled_from(["stop", "cut off", "kill", "release", "label", "join"]), st.floats(0, 60), st.floats(5, 40)
)


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**32),
    rates=st.lists(st.sampled_from([0.85, 1.0, 1.15]), min_size=1, max_size=4),
    network=st.tuples(st.sampled_from([0.01, 1.0, 4.0, 30.0]), st.floats(0, 0.6), st.sampled_from([0.0, 0.5, 1.0])),
    troubles=st.lists(trouble, max_size=12),
)
def test_there_are_never_two_leaders_and_in_the_end_there_is_one(
    seed: int,
    rates: list[float],
    network: tuple[float, float, float],
    troubles: list[tuple[str, float, float]],
) -> None:
    world = World(Network(random.Random(seed), *network))
    for number, rate in enumerate(rates):
        world.add(f"c{number}", rate=rate)
    for kind, at, seconds in troubles:
        world.at(at, lambda kind=kind, seconds=seconds: happens(world, kind, seconds))

    def one_at_most() -> None:
        assert len(world.leaders) <= 1

    world.run(120, check=one_at_most)
    world.network.lost = world.network.watch_lost = 0.0
    world.network.slowest_s = 0.01
    world.run(240, check=one_at_most)
    assert len(world.leaders) == any(candidate.alive for candidate in world.candidates)


def happens(world: World, kind: str, seconds: float) -> None:
    """Mostly to the leader: there it may do harm."""
    chance = world.network.chance
    leaders = [one for one in world.candidates if one.leading and chance.random() < 0.8]
    one = chance.choice(leaders or world.candidates)
    if kind == "stop":
        one.stop_for(seconds)
    elif kind == "cut off":
        one.cut_off = True
        world.after(seconds, lambda: setattr(one, "cut_off", False))
    elif kind == "kill":
        one.alive = False
    elif kind == "release":
        one.does(one.release)
    elif kind == "label" and world.lease.exists:
        world.change(replace(world.lease, metadata=b'{"labels":{}}'))
    elif kind == "join":
        world.add(f"late{len(world.candidates)}")
