"""Laws of the queue, whatever comes, goes, is cancelled, expires, is evicted or changes, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from epp.flow.settings import FlowRules
from epp.flow.ticket import DISPATCHED, OVER, QUEUED, Ticket
from epp.types import Decision, Outcome, Refused, Usage
from scorers.flow_fairness import GlobalStrictFairnessPolicy, RoundRobinFairnessPolicy
from scorers.flow_limits import PriorityHoldbackPolicy, SoftReflectiveCeilingPolicy, StaticUsageLimitPolicy
from scorers.flow_ordering import edf_ordering_policy, fcfs_ordering_policy, slo_deadline_ordering_policy
from scorers.flow_programs import ProgramAwareFairness
from tests.unit.flow_kit import World, band, rules

PRIORITIES = st.sampled_from([7, 1, 0, -1, -9])
"""1 is configured; the others come unannounced."""
LIMITS = {
    "static": StaticUsageLimitPolicy,
    "holdback": lambda: PriorityHoldbackPolicy(min_ceiling=0.4),
    "soft": SoftReflectiveCeilingPolicy,
}
SETTINGS = st.fixed_dictionaries(
    {
        "fairness": st.sampled_from([GlobalStrictFairnessPolicy, RoundRobinFairnessPolicy, ProgramAwareFairness]),
        "ordering": st.sampled_from([fcfs_ordering_policy] * 3 + [edf_ordering_policy, slo_deadline_ordering_policy]),
        "limit": st.sampled_from(sorted(LIMITS)),
        "band_requests": st.integers(1, 6),
        "band_bytes": st.integers(1, 60),
        "max_requests": st.sampled_from([0, 0, 3, 8]),
        "max_bytes": st.sampled_from([0, 0, 30, 100]),
        "ttl_s": st.sampled_from([0.0, 5.0, 20.0]),
        "empty_ttl_s": st.sampled_from([0.0, 3.0, 30.0]),
        "evict": st.booleans(),
    }
)


def made(drawn: dict[str, Any]) -> FlowRules:
    wanted = dict(drawn)
    limits = {"max_requests": wanted.pop("band_requests"), "max_bytes": wanted.pop("band_bytes")}
    fairness, ordering = wanted.pop("fairness")(), wanted.pop("ordering")
    return rules(
        band(1, fairness=fairness, ordering=ordering, **limits),
        limit=LIMITS[wanted.pop("limit")](),
        default=band(fairness=fairness, ordering=ordering, **limits),
        **wanted,
    )


class Watched(World):
    """Checks every dispatch at the moment it happens."""

    drawn: dict[str, Any]
    regime_since: float = 0.0
    tickets: dict[str, Ticket]

    def _charge(self, ticket: Ticket) -> None:
        assert self.endpoints, "dispatched to an empty pool"
        assert self.saturation() < 1.0, "dispatched to a saturated pool"
        rivals = [self.tickets[name] for name in self.waiting if name in self.tickets]
        if self.drawn["limit"] == "static":
            assert all(other.priority <= ticket.priority for other in rivals), "overtook a more important one"
        if self.drawn["ordering"] is fcfs_ordering_policy:
            alike = [o for o in rivals if (o.priority, o.fairness_id) == (ticket.priority, ticket.fairness_id)]
            assert all(other.number > ticket.number for other in alike), "overtook an earlier one of its flow"
        super()._charge(ticket)


class Queue(RuleBasedStateMachine):
    tickets = Bundle("tickets")

    @initialize(drawn=SETTINGS, places=st.integers(1, 4), endpoints=st.integers(0, 2))
    def begin(self, drawn: dict[str, Any], places: int, endpoints: int) -> None:
        self.world = Watched(made(drawn), places=places, endpoints=endpoints)
        self.world.drawn = drawn
        self.world.tickets = self.all = {}
        self.world.regime_since = self.world.now
        self.cancelled: set[str] = set()
        self.turned_away: set[str] = set()
        self.over: set[str] = set()

    @rule(
        target=tickets,
        priority=PRIORITIES,
        fairness_id=st.sampled_from("abc"),
        size=st.integers(0, 25),
        slo=st.sampled_from([None, 10.0, 5000.0]),
    )
    def enter(self, priority: int, fairness_id: str, size: int, slo: float | None) -> str:
        world, name = self.world, f"r{len(self.all) + len(self.turned_away)}"
        before = set(world.waiting)
        asked = {"priority": priority, "fairness_id": fairness_id, "size": size, "slo_ttft_ms": slo}
        try:
            ticket = world.enter(name, received_at=world.now, **asked)
        except Refused:
            self.turned_away.add(name)
            assert name not in world.sent
            return name
        self.all[name] = ticket
        assert ticket.priority == priority
        if ticket.state is QUEUED:
            self._limits_hold(priority)
            for gone in (before - set(world.waiting)) & set(world.refused):
                assert self.all[gone].priority < min(0, priority), "somebody not sheddable gave way"
        return name

    def _limits_hold(self, priority: int) -> None:
        state, drawn = self.world.flow.state(), self.world.drawn
        (mine,) = [one for one in state["bands"] if one["priority"] == priority]
        assert mine["requests"] <= drawn["band_requests"]
        assert mine["bytes"] <= drawn["band_bytes"]
        assert state["requests"] <= (drawn["max_requests"] or state["requests"])
        assert state["bytes"] <= (drawn["max_bytes"] or state["bytes"])

    @rule(name=consumes(tickets))
    def cancel(self, name: str) -> None:
        ticket = self.all.get(name)
        if ticket is not None:
            if ticket.state is QUEUED:
                self.cancelled.add(name)
            ticket.cancel()
            assert name not in self.world.waiting

    @rule(data=st.data(), tokens=st.integers(0, 1000))
    def refund(self, data: st.DataObject, tokens: int) -> None:
        if self.world.running:
            name = data.draw(st.sampled_from(sorted(self.world.running)))
            ticket = self.world.running[name]
            policy = self.world.flow._rules.default_band.fairness.instance
            if isinstance(policy, ProgramAwareFairness):
                usage = Usage(prompt_tokens=tokens)
                outcome = Outcome(usage, 200, "natural", 0.1, self.world.now - ticket.request.received_at)
                policy.finished(ticket.request, Decision(name, "m", 0.0, 1), outcome)
            self.over.add(name)
            self.world.end(name)

    @rule()
    def evicted_ones_end(self) -> None:
        for name in [name for name in self.world.told_to_end if name in self.world.running]:
            self.over.add(name)
            self.world.end(name)

    @rule(seconds=st.sampled_from([0.0, 0.01, 1.0, 4.0, 11.0, 700.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(endpoints=st.integers(0, 3))
    def the_pool_changes(self, endpoints: int) -> None:
        if bool(endpoints) != bool(self.world.endpoints):
            self.world.regime_since = self.world.now
        self.world.scale(endpoints)

    @rule(places=st.integers(1, 6))
    def a_reading_comes(self, places: int) -> None:
        self.world.places = places
        self.world.flow.changed()

    @rule(drawn=SETTINGS)
    def reload(self, drawn: dict[str, Any]) -> None:
        before = self.world.waiting
        self.world.drawn = drawn
        self.world.flow.use(made(drawn))
        assert set(before) <= set(self.world.waiting) | set(self.world.sent)
        # Who has waited longer than the new budget is told by the next timer.
        self.world.advance(0.001)

    @rule(priorities=st.sets(PRIORITIES))
    def objectives_change(self, priorities: set[int]) -> None:
        self.world.flow.objectives(priorities)

    @invariant()
    def everybody_is_in_exactly_one_place(self) -> None:
        world = self.world
        waiting, running, refused = set(world.waiting), set(world.running), set(world.refused)
        places = [waiting, running, refused, self.cancelled, self.over]
        assert sum(map(len, places)) == len(self.all), "somebody is lost, or answered twice"
        assert set().union(*places) == set(self.all)
        assert {name for name, ticket in self.all.items() if ticket.state is QUEUED} == waiting
        assert {name for name, ticket in self.all.items() if ticket.state is DISPATCHED} == running
        assert {
            name for name, ticket in self.all.items() if ticket.state is OVER
        } == refused | self.cancelled | self.over

    @invariant()
    def the_counts_are_right(self) -> None:
        state = self.world.flow.state()
        mine = [self.all[name] for name in self.world.waiting]
        assert (state["requests"], state["bytes"]) == (len(mine), sum(ticket.size for ticket in mine))
        for one in self.world.flow._bands:
            assert [ticket.priority for ticket in one.waiting.values()] == [one.priority] * len(one)
            assert list(one.waiting) == sorted(one.waiting), "the order of arrival is lost"
            assert sum(map(len, one.flows.values())) == len(one)
            assert sum(flow.bytes for flow in one.flows.values()) == one.bytes
            for flow in one.flows.values():
                best = min((t for t in one.waiting.values() if t.flow is flow), key=lambda t: t.key)
                assert flow.head is best
            best_flow = min(one.flows.values(), key=lambda f: f.head.key, default=None)
            assert one.best() is best_flow
        assert state["in_flight"]["requests"] == len(self.world.running)
        assert len(self.world.heard.outcomes) == len(self.all) + len(self.turned_away) - len(mine)
        assert self.world.heard.waiting == {ticket.number for ticket in mine}

    @invariant()
    def nobody_waits_who_may_go(self) -> None:
        """Events alone wake the queue: none may be missed."""
        world = self.world
        if world.waiting and world.drawn["limit"] == "static":
            assert not world.endpoints or world.saturation() >= 1.0

    @invariant()
    def nobody_waits_longer_than_its_budget(self) -> None:
        world = self.world
        budget = world.drawn["ttl_s" if world.endpoints else "empty_ttl_s"]
        for name in world.waiting if budget else ():
            waited = world.now - max(self.all[name].queued_at, world.regime_since)
            assert waited < budget + 0.002, "a timer was missed"

    @invariant()
    def only_sheddable_requests_are_ended_and_two_at_most_at_once(self) -> None:
        world = self.world
        assert all(self.all[name].priority < 0 for name in world.told_to_end)
        assert len(set(world.told_to_end)) == len(world.told_to_end)
        assert world.flow.state()["in_flight"]["ending"] <= 2

    @invariant()
    def no_policy_failed(self) -> None:
        assert self.world.heard.failures == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            left = set(self.world.waiting)
            self.world.flow.close()
            assert self.world.waiting == []
            assert left <= set(self.world.refused)
            self.world.advance(1e5)
            self.everybody_is_in_exactly_one_place()


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40)
