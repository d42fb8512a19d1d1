"""Policies of the queue, each by what goes when. Time is moved by hand."""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp import Band, Flow, Item
from epp.testing import request
from epp.types import Decision, Outcome, Usage
from scorers import flow_programs
from scorers.flow_fairness import GlobalStrictFairnessPolicy, RoundRobinFairnessPolicy
from scorers.flow_limits import PriorityHoldbackPolicy, SoftReflectiveCeilingPolicy, StaticUsageLimitPolicy
from scorers.flow_ordering import edf_ordering_policy, fcfs_ordering_policy, slo_deadline_ordering_policy
from scorers.flow_programs import ProgramAwareFairness
from tests.unit.flow_kit import World, band, busy, rules


def drained(world: World) -> list[str]:
    """Ids in the order they go, one at a time."""
    while world.running:
        world.end(next(iter(world.running)))
    return world.sent[1:]


def queued(policy: Any, *names: str, ordering: Any = fcfs_ordering_policy, **settings: Any) -> World:
    """Requests named flow + number wait, one more each second."""
    world = busy(rules(default=band(fairness=policy, ordering=ordering), **settings))
    for name in names:
        world.now += 1.0
        world.enter(name, fairness_id=name[0])
    return world


# Fairness.


def test_global_strict_takes_the_best_head_whoever_asks() -> None:
    world = queued(GlobalStrictFairnessPolicy(), "a1", "a2", "b1", "a3", "c1")
    assert drained(world) == ["a1", "a2", "b1", "a3", "c1"]


def test_global_strict_follows_the_order_over_all_flows() -> None:
    world = busy(rules(default=band(ordering=slo_deadline_ordering_policy)))
    for name, slo in (("a1", 900.0), ("a2", 100.0), ("b1", 500.0), ("b2", None), ("c1", 50.0)):
        world.enter(name, fairness_id=name[0], slo_ttft_ms=slo, received_at=world.now)
    assert drained(world) == ["c1", "a2", "b1", "a1", "b2"]


def test_global_strict_skips_who_has_left() -> None:
    world = queued(GlobalStrictFairnessPolicy())
    tickets = {name: world.enter(name, fairness_id=name[0]) for name in ("a1", "a2", "b1", "b2")}
    world.end("busy")
    tickets["a2"].cancel()
    tickets["b1"].cancel()
    assert drained(world) == ["a1", "b2"]


def test_round_robin_takes_flows_in_turn_by_name() -> None:
    world = queued(RoundRobinFairnessPolicy(), "c1", "c2", "a1", "a2", "a3", "b1")
    assert drained(world) == ["a1", "b1", "c1", "a2", "c2", "a3"]


def test_round_robin_goes_on_after_the_last_one_served() -> None:
    world = queued(RoundRobinFairnessPolicy(), "a1", "c1")
    world.end("busy")
    world.enter("b1", fairness_id="b")
    world.enter("a2", fairness_id="a")
    assert drained(world) == ["a1", "b1", "c1", "a2"]


def test_round_robin_begins_again_with_a_flow_that_comes_between() -> None:
    world = queued(RoundRobinFairnessPolicy(), "b1", "b2", "c1")
    world.end("busy")
    world.enter("a1", fairness_id="a")
    world.enter("d1", fairness_id="d")
    assert drained(world) == ["b1", "c1", "d1", "a1", "b2"]


def test_round_robin_skips_flows_that_have_left_and_takes_them_when_they_come_back() -> None:
    world = queued(RoundRobinFairnessPolicy(), "a1", "c1")
    world.enter("b1", fairness_id="b").cancel()
    world.end("busy")
    world.enter("b2", fairness_id="b")
    assert drained(world) == ["a1", "b2", "c1"]


def test_round_robin_keeps_the_turns_of_bands_apart() -> None:
    world = queued(RoundRobinFairnessPolicy(), "a1", "b1")
    world.enter("a-low", priority=-1, fairness_id="a")
    world.enter("b-low", priority=-1, fairness_id="b")
    assert drained(world) == ["a1", "b1", "a-low", "b-low"]


def test_a_flow_that_floods_does_not_keep_the_others_waiting() -> None:
    world = queued(RoundRobinFairnessPolicy(), *[f"a{number}" for number in range(50)], "b1", "b2", "c1")
    assert set(drained(world)[:5]) == {"a0", "a1", "b1", "b2", "c1"}


def served(policy: ProgramAwareFairness, program: str, at: float, prompt: int, completion: int = 0) -> None:
    usage = Usage(prompt_tokens=prompt, completion_tokens=completion)
    outcome = Outcome(usage, 200, "natural", 0.1, 2.0)
    policy.finished(request(fairness_id=program, received_at=at - 2.0), Decision("id", "m", at, 1), outcome)


def test_program_aware_takes_who_had_least() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0)
    for program, tokens in (("a", 300), ("b", 100), ("c", 200)):
        served(policy, program, 1000.0, tokens)
    assert drained(queued(policy, "a1", "b1", "c1")) == ["b1", "c1", "a1"]


def test_program_aware_counts_a_completion_token_twice() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0)
    served(policy, "a", 1000.0, 10, 50)
    served(policy, "b", 1000.0, 109, 0)
    assert drained(queued(policy, "a1", "b1")) == ["b1", "a1"]


def test_program_aware_forgets_service_by_halves() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0, las_half_life_seconds=60.0)
    served(policy, "a", 1000.0, 1000)
    served(policy, "b", 1120.0, 240)
    # 1000 two half-lives ago are 250 by now.
    assert drained(queued(policy, "a1", "b1")) == ["b1", "a1"]
    other = ProgramAwareFairness(las_weight_head_wait=0.0, las_half_life_seconds=60.0)
    served(other, "a", 1000.0, 1000)
    served(other, "b", 1120.0, 260)
    assert drained(queued(other, "b1", "a1")) == ["a1", "b1"]


def test_program_aware_stays_right_after_many_half_lives() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0, las_half_life_seconds=0.01, eviction_ttl_seconds=1e9)
    world = queued(policy, "a1", "b1")
    served(policy, "a", 2000.0, 1000)
    served(policy, "b", 2000.02, 240)
    assert drained(world) == ["b1", "a1"]


def test_program_aware_without_a_half_life_forgets_nothing() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0, las_half_life_seconds=0.0)
    served(policy, "a", 1000.0, 1000)
    served(policy, "b", 4000.0, 999)
    assert drained(queued(policy, "a1", "b1")) == ["b1", "a1"]


def test_program_aware_weighs_service_against_the_wait_of_the_head() -> None:
    # Service 0, 0.5, 1 of its span and wait 0, 1, 0.5 of its own: 0.8 + 0, 0.4 + 0.2, 0 + 0.1.
    policy = ProgramAwareFairness()
    for program, tokens in (("a", 0), ("b", 100), ("c", 200)):
        served(policy, program, 1000.0, tokens)
    assert drained(queued(policy, "b1", "c1", "a1")) == ["a1", "b1", "c1"]
    # The other way round the wait decides: 0.2 + 0, 0.1 + 0.8, 0 + 0.4.
    patient = ProgramAwareFairness(las_weight_service=0.2, las_weight_head_wait=0.8)
    for program, tokens in (("a", 0), ("b", 100), ("c", 200)):
        served(patient, program, 1000.0, tokens)
    assert drained(queued(patient, "b1", "c1", "a1")) == ["b1", "c1", "a1"]


def scored(policy: ProgramAwareFairness, waiting: Band, now: float, service: dict[str, float]) -> dict[str, float]:
    """Upstream's formula, written down plainly."""

    def normal(values: dict[str, float]) -> dict[str, float]:
        low, high = min(values.values()), max(values.values())
        return {name: (value - low) / (high - low) if high > low else 0.5 for name, value in values.items()}

    served = normal({name: service.get(name, 0.0) for name in waiting.flows})
    waited = normal({name: now - flow.head.queued_at for name, flow in waiting.flows.items() if flow.head})
    return {name: 0.8 * (1 - served[name]) + 0.2 * waited[name] for name in waiting.flows}


STEPS = st.tuples(st.sampled_from(["queue", "queue", "go", "serve", "cancel"]), st.integers(0, 5), st.integers(1, 50))


@given(st.lists(STEPS, min_size=40, max_size=160))
@settings(max_examples=200)
def test_program_aware_scores_as_the_formula_says_whatever_happened_before(steps: list[tuple[str, int, int]]) -> None:
    def shortest_first(item: Item) -> float:
        return item.size

    policy, service = ProgramAwareFairness(las_half_life_seconds=0.0), {}
    world = busy(rules(default=band(fairness=policy, ordering=shortest_first)))
    (usual,) = [one for one in world.flow._bands if one.priority == 0]
    tickets = []
    for number, (what, which, amount) in enumerate(steps):
        world.now += amount / 10
        program = f"p{which}"
        if what == "queue":
            tickets.append(world.enter(f"r{number}", fairness_id=program, size=amount))
        elif what == "cancel" and tickets:
            tickets[which % len(tickets)].cancel()
        elif what == "serve":
            served(policy, program, world.now, amount)
            service[program] = service.get(program, 0.0) + amount
        elif what == "go" and world.waiting:
            scores = scored(policy, usual, world.now, service)
            world.end(next(iter(world.running)))
            went = world.running[world.sent[-1]].fairness_id
            assert scores[went] == pytest.approx(max(scores.values()))
    assert world.heard.failures == []


def test_program_aware_shares_a_full_pool_by_tokens_not_by_requests() -> None:
    policy = ProgramAwareFairness()
    world = queued(policy, *[f"{flow}{number}" for number in range(200) for flow in "ab"])
    cost = {"a": 300, "b": 100}
    world.end("busy")
    for _ in range(100):
        (name,) = world.running
        world.now += 1.0
        served(policy, name[0], world.now, cost[name[0]])
        world.end(name)
    went = Counter(name[0] for name in world.sent[1:])
    assert went["b"] == pytest.approx(75, abs=4)


def test_program_aware_forgets_programs_that_ask_for_nothing() -> None:
    policy = ProgramAwareFairness(eviction_ttl_seconds=10.0, eviction_sweep_seconds=5.0)
    served(policy, "gone", 1000.0, 100)
    world = queued(policy, "w1")
    served(policy, "w", 1000.0, 100)
    served(policy, "here", 1020.0, 100)
    assert policy.state()["programs"] == 2
    assert drained(world) == ["w1"]


def of_programs(policy: ProgramAwareFairness, *programs: str) -> World:
    """A request of each waits, named like it."""
    world = busy(rules(default=band(fairness=policy)))
    for program in programs:
        world.enter(program, fairness_id=program)
    return world


def test_program_aware_remembers_no_endless_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_programs, "MOST_PROGRAMS", 10)
    policy = ProgramAwareFairness()
    names = [f"{number:06d}" * 10_000 for number in range(30)]
    world = of_programs(policy, *names)
    for number, name in enumerate(names):
        served(policy, name, 2.0 + number, 100 - number)
    drained(world)
    found = policy.statistics()
    assert (len(found.tokens), len(found.wait_ms)) == (10, 10)
    assert {len(name) for name in (*found.tokens, *found.wait_ms)} == {32}


def test_program_aware_tells_programs_with_long_names_apart() -> None:
    policy = ProgramAwareFairness(las_weight_head_wait=0.0)
    much, little = "a" * 500, "a" * 499 + "b"
    served(policy, much, 2.0, 100)
    assert drained(of_programs(policy, much, little)) == [little, much]


def test_program_aware_hands_its_books_over_at_a_reload() -> None:
    before = ProgramAwareFairness()
    served(before, "a", 1000.0, 300)
    served(before, "b", 1000.0, 100)
    policy = ProgramAwareFairness(las_weight_head_wait=0.0, las_half_life_seconds=30.0)
    policy.adopt(before)
    assert drained(queued(policy, "a1", "b1")) == ["b1", "a1"]


def test_program_aware_says_how_fair_it_has_been() -> None:
    policy = ProgramAwareFairness()
    assert policy.state() == {"programs": 0, "tokens": 0.0, "jains_fairness_index": 1.0}
    served(policy, "a", 1000.0, 300)
    served(policy, "b", 1000.0, 100)
    assert policy.state()["jains_fairness_index"] == pytest.approx(0.8)


@pytest.mark.parametrize("make", [GlobalStrictFairnessPolicy, RoundRobinFairnessPolicy, ProgramAwareFairness])
def test_a_policy_takes_over_who_waits_and_goes_on_after_it(make: Any) -> None:
    world = queued(GlobalStrictFairnessPolicy(), "a1", "b1", "a2", "c1")
    world.flow.use(rules(default=band(fairness=make())))
    world.enter("d1", fairness_id="d")
    assert sorted(drained(world)) == ["a1", "a2", "b1", "c1", "d1"]


# Order.


def test_first_come_is_first_served() -> None:
    assert drained(queued(None, "a1", "a2", "a3")) == ["a1", "a2", "a3"]


def test_edf_orders_by_what_is_left_of_the_ttl() -> None:
    world = queued(None, "a1", ordering=edf_ordering_policy, ttl_s=0.0)
    world.flow.use(rules(default=world.rules.default_band, ttl_s=60.0))
    world.enter("a2", fairness_id="a")
    world.flow.use(rules(default=world.rules.default_band, ttl_s=10.0))
    world.enter("a3", fairness_id="a")
    assert drained(world) == ["a3", "a2", "a1"]


def test_edf_with_one_ttl_is_by_arrival() -> None:
    assert drained(queued(None, "a1", "a2", "a3", ordering=edf_ordering_policy)) == ["a1", "a2", "a3"]


def test_slo_deadline_orders_by_when_the_first_token_is_due() -> None:
    world = busy(rules(default=band(ordering=slo_deadline_ordering_policy)))
    for name, received_at, slo in (("n1", 1.0, None), ("l", 2.0, 5000.0), ("s", 5.0, 100.0), ("n0", 0.5, None)):
        world.enter(name, received_at=received_at, slo_ttft_ms=slo)
    assert drained(world) == ["s", "l", "n0", "n1"]


def test_ties_go_by_arrival() -> None:
    def alike(item: Item) -> float:
        return inf

    assert drained(queued(None, "a1", "a2", "b1", ordering=alike)) == ["a1", "a2", "b1"]


# Usage limits.


def test_static_gives_every_priority_the_same_ceiling() -> None:
    policy = StaticUsageLimitPolicy(threshold=0.7)
    assert policy(0.5, (3, 0, -1)) == (0.7, 0.7, 0.7)
    assert policy(2.0, (3,)) == (0.7,)


@pytest.mark.parametrize(
    ("domain", "priorities", "expected"),
    [
        ("rank", (10, 0, -1), (0.9, 0.6, 0.3)),
        ("value", (10, 5, 0), (0.9, 0.6, 0.3)),
        ("value", (10, 0, -10), (0.9, 0.6, 0.3)),
        ("value", (9, 8, -1), (0.9, 0.84, 0.3)),
        ("rank", (4,), (0.9,)),
        ("value", (4,), (0.9,)),
    ],
)
def test_priority_holdback(domain: Any, priorities: tuple[int, ...], expected: tuple[float, ...]) -> None:
    policy = PriorityHoldbackPolicy(min_ceiling=0.3, max_ceiling=0.9, domain=domain)
    assert policy(0.0, priorities) == pytest.approx(expected)


def test_priority_holdback_wants_its_ceilings_apart() -> None:
    with pytest.raises(ValueError, match=r"minCeiling \(0.5\) must be below maxCeiling \(0.5\)"):
        PriorityHoldbackPolicy(min_ceiling=0.5, max_ceiling=0.5)


@pytest.mark.parametrize(
    ("saturation", "expected"),
    [
        (0.0, [(1, 1, 1)] * 4),
        (0.4, [(1, 1, 1)] * 4),
        (0.499, [(1, 1, 1)] * 4),
        # The middle opens below 2/3, the lowest below 1/2, and from there every round(s / (1 - s)) times.
        (0.62, [(1, 1, 0), (1, 1, 1)] * 2),
        (0.75, [(1, 0, 0), (1, 0, 0), (1, 1, 1), (1, 0, 0)]),
        (1.0, [(1, 0, 0)] * 4),
        (3.0, [(1, 0, 0)] * 4),
    ],
)
def test_soft_reflective_ceiling(saturation: float, expected: list[tuple[float, ...]]) -> None:
    policy = SoftReflectiveCeilingPolicy()
    assert [policy(saturation, (5, 0, -1)) for _ in range(4)] == expected


def test_soft_reflective_ceiling_never_holds_back_a_single_band() -> None:
    assert SoftReflectiveCeilingPolicy()(0.99, (0,)) == (1.0,)


def test_under_holdback_the_last_places_are_kept_for_the_important() -> None:
    world = World(rules(limit=PriorityHoldbackPolicy(min_ceiling=0.5)), places=4)
    world.flow.objectives([5])
    for number in range(4):
        world.enter(f"low{number}")
    for number in range(3):
        world.enter(f"high{number}", priority=5)
    assert world.sent == ["low0", "low1", "high0", "high1"]


def test_under_the_soft_ceiling_the_less_important_go_now_and_then() -> None:
    world = World(rules(limit=SoftReflectiveCeilingPolicy()), places=8)
    world.flow.objectives([5])
    for number in range(6):
        world.enter(f"busy{number}", priority=5)
    world.enter("low")
    assert "low" not in world.sent
    # At 6 / 8 every third look, and one every 50 ms where nothing else happens.
    world.advance(0.1)
    assert world.sent[-1] == "low"


# Policies that fail.


class Broken:
    """Fails in every way."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def turn(self, band: Band, now: float) -> Any:
        if self.answer is None:
            raise RuntimeError("a bug")
        return self.answer

    def queued(self, flow: Flow, item: Item) -> None:
        raise RuntimeError("a bug")

    dispatched = dropped = queued


@pytest.mark.parametrize("answer", [None, "a", 7, Flow("a", 0, {})])
def test_where_a_fairness_policy_fails_the_best_head_goes(answer: Any) -> None:
    world = queued(Broken(answer), "b1", "a1", "b2")
    world.enter("b3", fairness_id="b").cancel()
    assert drained(world) == ["b1", "a1", "b2"]
    assert set(world.heard.failures) == {"Broken"}


def test_a_fairness_policy_may_let_nobody_go() -> None:
    class Night:
        def turn(self, band: Band, now: float) -> Flow | None:
            return band.best() if now >= 2000.0 else None

    world = World(rules(band(1, fairness=Night()), ttl_s=0.0))
    world.enter("held", priority=1)
    world.enter("below")
    assert world.sent == ["below"]
    world.end("below")
    world.advance(990.0)
    assert world.sent == ["below"]
    world.advance(10.05)
    assert (world.sent, world.heard.failures) == (["below", "held"], [])


@pytest.mark.parametrize("told", [float("nan"), None, "soon", (1.0, "x"), (float("nan"),), [1.0]])
def test_where_an_order_fails_it_is_by_arrival(told: Any) -> None:
    def nonsense(item: Item) -> Any:
        return told

    world = queued(None, "a1", "a2", "a3", ordering=nonsense)
    assert drained(world) == ["a1", "a2", "a3"]
    assert "nonsense" in world.heard.failures


def test_an_order_that_raises_loses_nobody() -> None:
    def raising(item: Item) -> float:
        raise SystemExit

    assert drained(queued(None, "a1", "a2", ordering=raising)) == ["a1", "a2"]


def test_keys_of_different_lengths_can_be_compared() -> None:
    def ragged(item: Item) -> Any:
        return (1.0,) * (len(item.request.id) % 3) if item.request.id != "a1" else 1

    assert sorted(drained(queued(None, "a1", "a22", "a333", "a4444", ordering=ragged))) == [
        "a1",
        "a22",
        "a333",
        "a4444",
    ]


@pytest.mark.parametrize("told", [None, (), (1.0,), (1.0, 2.0, 3.0, 4.0), (1.0, float("nan")), "ab", 5])
def test_where_a_usage_limit_fails_the_ceiling_is_one(told: Any) -> None:
    def nonsense(saturation: float, priorities: tuple[int, ...]) -> Any:
        return told

    world = World(rules(band(1), limit=nonsense))
    world.enter("a")
    world.enter("b")
    assert (world.sent, world.waiting) == (["a"], ["b"])
    assert set(world.heard.failures) == {"nonsense"}


def test_a_usage_limit_that_raises_gives_a_ceiling_of_one() -> None:
    def raising(saturation: float, priorities: tuple[int, ...]) -> Any:
        raise RuntimeError("a bug")

    world = World(rules(limit=raising))
    world.enter("a")
    world.enter("b")
    assert (world.sent, world.waiting) == (["a"], ["b"])


def test_program_aware_tells_how_long_programs_waited() -> None:
    policy = ProgramAwareFairness()
    world = queued(policy, "a1", "a2", "b1")
    world.now += 3.0
    drained(world)
    # The first of a went at once, the others after 5, 4 and 3 s.
    assert policy.statistics().wait_ms == {"a": pytest.approx(3000.0), "b": pytest.approx(3000.0)}
    served(policy, "a", 1000.0, 300)
    assert policy.statistics().tokens == {"a": pytest.approx(300.0)}
