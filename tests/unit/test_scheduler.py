"""One run of a profile, and whole decisions: order, clamping, what a broken plug-in costs, who is left out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp import testing
from epp.pickers import max_score_picker
from epp.plan import Given, Measured, Setup
from epp.profile_handlers import header_profile_handler
from epp.profiles import any_endpoint, decide
from epp.scheduler import Bound, Context, Profile, run
from epp.signals import Provides, column
from epp.types import Decision, Endpoints, Mask, Refused, Request, Run, Scores

PICKER = Bound("picker", max_score_picker, ("scores", "rng"))


def constant(score: float, name: str = "") -> Bound:
    return Bound(name or f"always-{score}", lambda e: np.full(len(e), score), ("endpoints",))


def keeping(*rows: int, name: str = "") -> Bound:
    def keep(endpoints: Endpoints) -> Mask:
        return np.array([int(r.name[1:]) in rows for r in endpoints.records], dtype=np.bool_)

    return Bound(name or f"keep-{rows}", keep, ("endpoints",))


def returning(value: Any) -> Bound:
    return Bound("odd", lambda e: value, ("endpoints",))


def profile(*, filters: tuple[Bound, ...] = (), scorers: Any = (), picker: Bound = PICKER) -> Profile:
    return Profile("default", filters, tuple(scorers), picker)


def ran(made: Profile, n: int = 3, suspended: frozenset[str] = frozenset()) -> tuple[Run, Decision]:
    decision = Decision("r", "m", 0.0, n)
    values = {
        "request": testing.request(),
        "endpoints": testing.endpoints(waiting=[0.0] * n),
        "now": 0.0,
        "rng": np.random.default_rng(0),
    }
    ticks = itertools.count()
    context = Context(values, frozenset(), None, decision, lambda: float(next(ticks)), suspended)
    return run(made, context), decision


def test_filters_narrow_in_order_and_weighted_votes_add_up_unnormalised() -> None:
    made = profile(filters=(keeping(0, 1, 2), keeping(0, 1)), scorers=[(constant(0.3), 60.0), (constant(0.8), 40.0)])
    result, _ = ran(made, 4)
    assert [record.name for record in result.candidates] == ["e0", "e1"]
    assert result.totals.tolist() == [50.0, 50.0]


def test_each_filter_sees_what_the_one_before_it_left() -> None:
    seen = []

    def spying(drop: int) -> Bound:
        def keep(endpoints: Endpoints) -> Mask:
            seen.append([r.name for r in endpoints.records])
            return np.array([r.name != f"e{drop}" for r in endpoints.records], dtype=np.bool_)

        return Bound(f"not-{drop}", keep, ("endpoints",))

    result, _ = ran(profile(filters=(spying(0), spying(2), spying(9))))
    assert seen == [["e0", "e1", "e2"], ["e1", "e2"], ["e1"]]
    assert [(step.by, step.removed) for step in result.steps] == [
        ("not-0", ("default/e0",)),
        ("not-2", ("default/e2",)),
    ]


def test_filters_that_leave_nobody_refuse_before_any_scorer_is_asked() -> None:
    asked: list[int] = []
    scorer = Bound("spy", lambda e: asked.append(1), ("endpoints",))
    result, _ = ran(profile(filters=(keeping(name="strict"),), scorers=[(scorer, 1.0)]))
    assert result.refused is not None
    assert (result.refused.status, result.refused.reason, result.refused.by) == (429, "rejected-saturated", "strict")
    assert asked == []


def test_votes_outside_zero_and_one_are_clamped_and_counted() -> None:
    result, decision = ran(profile(scorers=[(constant(-0.5), 1.0), (constant(1.5), 1.0)]), 2)
    assert result.totals.tolist() == [1.0, 1.0]
    assert [flaw.rule for flaw in decision.flaws] == ["range", "range"]


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        pytest.param(np.ones(2), "shape", id="wrong length"),
        pytest.param(np.ones((3, 1)), "shape", id="wrong rank"),
        pytest.param([1.0, 1.0, 1.0], "shape", id="a list"),
        pytest.param(np.ones(3, dtype=np.float32), "shape", id="float32"),
        pytest.param(0.5, "shape", id="a number"),
    ],
)
def test_a_vote_that_is_no_vote_is_left_out_and_counted(value: Any, rule: str) -> None:
    result, decision = ran(profile(scorers=[(returning(value), 5.0), (constant(0.5), 1.0)]))
    assert result.totals.tolist() == [0.5, 0.5, 0.5]
    assert [(flaw.by, flaw.rule) for flaw in decision.flaws] == [("odd", rule)]


def test_a_nan_counts_as_zero_and_never_wins() -> None:
    result, decision = ran(profile(scorers=[(returning(np.array([0.5, np.nan, 0.9])), 1.0)]))
    assert result.totals.tolist() == [0.5, 0.0, 0.9]
    assert result.picked[0].name == "e2"
    assert [flaw.rule for flaw in decision.flaws] == ["nan"]


def test_a_plug_in_that_raises_costs_its_own_vote_only() -> None:
    def broken(endpoints: Endpoints) -> Scores:
        raise ZeroDivisionError("oops")

    bound = Bound("broken", broken, ("endpoints",))
    result, decision = ran(profile(filters=(bound,), scorers=[(bound, 1.0), (constant(1.0), 1.0)]))
    assert result.totals.tolist() == [1.0, 1.0, 1.0]
    assert [(flaw.by, flaw.rule) for flaw in decision.flaws] == [("broken", "exception")] * 2
    at = f"{broken.__code__.co_filename}:{broken.__code__.co_firstlineno + 1}"
    assert {flaw.detail for flaw in decision.flaws} == {f"ZeroDivisionError('oops') at {at}"}


def test_a_suspended_plug_in_is_not_called() -> None:
    result, decision = ran(profile(scorers=[(constant(1.0, "slow"), 1.0)]), suspended=frozenset({"slow"}))
    assert result.totals.tolist() == [0.0, 0.0, 0.0]
    assert [(flaw.by, flaw.rule) for flaw in decision.flaws] == [("slow", "suspended")]


@pytest.mark.parametrize("rows", [[], [7], [-1], [0, 0], None, ["x"]], ids=str)
def test_a_picker_that_returns_no_rows_is_replaced_by_the_highest_total(rows: Any) -> None:
    picker = Bound("picker", lambda s: rows, ("scores",))
    scorer = returning(np.array([0.1, 0.9, 0.5]))
    result, decision = ran(profile(scorers=[(scorer, 1.0)], picker=picker))
    assert (result.picked[0].name, decision.flaws[-1].rule) == ("e1", "rows")


def test_every_plug_in_is_timed_where_it_worked() -> None:
    _, decision = ran(profile(filters=(keeping(0, 1),), scorers=[(constant(1.0), 1.0)]))
    assert [(s.by, s.place, s.seconds) for s in decision.spent] == [
        ("keep-(0, 1)", "filter", 1.0),
        ("always-1.0", "scorer", 1.0),
        ("picker", "picker", 1.0),
    ]


@given(st.integers(0, 6), st.lists(st.lists(st.booleans(), min_size=6, max_size=6), max_size=3), st.randoms())
def test_what_is_picked_passed_every_filter_and_has_the_highest_total(n: int, masks: Any, random: Any) -> None:
    filters = tuple(keeping(*[row for row in range(6) if mask[row]], name=f"f{at}") for at, mask in enumerate(masks))
    scores = np.array([random.random() for _ in range(6)])
    by_name = Bound("s", lambda e: np.array([scores[int(r.name[1:])] for r in e.records]), ("endpoints",))
    result, _ = ran(profile(filters=filters, scorers=[(by_name, 2.0)]), n)
    left = [row for row in range(n) if all(mask[row] for mask in masks)]
    if not left:
        assert result.refused is not None
        return
    assert [r.name for r in result.candidates] == [f"e{row}" for row in left]
    assert result.picked_rows[0] in left
    assert scores[result.picked_rows[0]] == max(scores[left])


# ---- whole decisions


def single(request: Request, profiles: tuple[str, ...], runs: Mapping[str, Run]) -> list[str]:
    return [] if runs else list(profiles)


HANDLER = Bound("handler", single, ("request", "profiles", "runs"))


def setup(*profiles: Profile, **parts: Any) -> Setup:
    made = {p.name: p for p in profiles or (profile(scorers=[(constant(1.0), 1.0)]),)}
    return Setup(**{"plugins": {}, "profiles": made, "handler": HANDLER, "primary": None, **parts})


def inputs(n: int = 3, **more: Any) -> Given:
    return Given(
        testing.request(), testing.endpoints(waiting=[0.0] * n), 0.0, np.random.default_rng(0), lambda: 0.0, **more
    )


def decided(made: Setup, given_: Given) -> Decision:
    decision = decide(made, given_, made.columns)
    assert isinstance(decision, Decision)
    return decision


def mask(*values: int) -> Mask:
    return np.array(values, dtype=np.bool_)


def test_a_decision_without_slow_signals_never_suspends() -> None:
    assert len(decided(setup(), inputs()).picked) == 1


def test_the_hint_and_the_cooling_narrow_before_any_profile_and_are_told() -> None:
    decision = decided(setup(), inputs(subset=mask(1, 1, 0), cooling=mask(1, 0, 0)))
    assert [record.name for record in decision.run.candidates] == ["e1"]
    assert [(step.by, step.removed) for step in decision.steps] == [
        ("subset", ("default/e2",)),
        ("cooling", ("default/e0",)),
    ]


def test_if_all_that_the_hint_allows_are_cooling_they_stay_candidates() -> None:
    decision = decided(setup(), inputs(subset=mask(1, 0, 0), cooling=mask(1, 0, 0)))
    assert decision.picked[0].name == "e0"


@pytest.mark.parametrize("given_", [inputs(0), inputs(subset=mask(0, 0, 0))], ids=["empty pool", "empty hint"])
@pytest.mark.parametrize("choose", [lambda g: decided(setup(), g), any_endpoint], ids=["decide", "bodiless"])
def test_nobody_to_choose_from_is_503(choose: Callable[[Given], Decision], given_: Given) -> None:
    with pytest.raises(Refused) as refusal:
        choose(given_)
    assert (refusal.value.status, refusal.value.reason) == (503, "rejected-no-endpoints")


def test_screeners_each_see_all_and_only_what_every_one_keeps_is_left() -> None:
    made = setup(screeners=(keeping(0, 1, name="a"), keeping(1, 2, name="b")))
    decision = decided(made, inputs())
    assert [record.name for record in decision.run.candidates] == ["e1"]
    with pytest.raises(Refused, match="screeners eliminated"):
        decided(setup(screeners=(keeping(0, name="a"), keeping(1, name="b"))), inputs())


def test_an_admitters_denial_keeps_its_code() -> None:
    made = setup(admitters=(Bound("gate", lambda e: Refused(403, "not you"), ("endpoints",)),))
    with pytest.raises(Refused) as refusal:
        decided(made, inputs())
    assert (refusal.value.status, refusal.value.by) == (403, "gate")
    assert refusal.value.decision is not None


def signal_of(name: str, value: Any, default: Any, reads: tuple[str, ...] = ("endpoints",)) -> Measured:
    provides = Provides({name: default}, "", False, 400.0)
    return Measured(Bound(f"{name}-producer", lambda *_: value, reads), provides, (name,))


def reader(name: str) -> Profile:
    return profile(scorers=[(Bound("reader", lambda v: v, (name,)), 1.0)], filters=(keeping(1, 2),))


def test_a_column_signal_reaches_its_reader_cut_to_the_candidates() -> None:
    made = setup(reader("x"), signals=(signal_of("x", np.array([0.1, 0.2, 0.3]), column()),))
    decision = decided(made, inputs())
    assert decision.run.votes[0].scores.tolist() == [0.2, 0.3]
    assert decision.signals["x"].tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    "value", [None, np.ones(2), np.array([np.nan] * 3), 1.0], ids=["none", "short", "nan", "number"]
)
def test_a_signal_that_fails_gives_its_readers_the_declared_default(value: Any) -> None:
    made = setup(reader("x"), signals=(signal_of("x", value, column(0.25)),))
    assert decided(made, inputs()).run.votes[0].scores.tolist() == [0.25, 0.25]


async def later() -> np.ndarray[Any, Any]:
    return np.array([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("sent", "flaws", "votes"), [(np.full(3, 0.5), [], [0.5] * 2), (None, ["timeout"], [0.0] * 2)])
def test_a_slow_signal_suspends_the_decision_until_its_value_is_sent(sent: Any, flaws: Any, votes: Any) -> None:
    made = setup(reader("x"), signals=(signal_of("x", later(), column()),))
    waiting = decide(made, inputs(), made.columns)
    assert not isinstance(waiting, Decision)
    slow = next(waiting)
    slow.value.close()  # type: ignore[attr-defined]  # a coroutine
    with pytest.raises(StopIteration) as done:
        waiting.send(sent)
    decision = done.value.value
    assert [flaw.rule for flaw in decision.flaws] == flaws
    assert decision.run.votes[0].scores.tolist() == votes


def test_a_signal_that_answered_at_once_may_be_slow_the_next_time() -> None:
    answers: list[Any] = [object(), later()]
    made = signal_of("x", None, None)
    measured = Measured(Bound("x", lambda: answers.pop(0), ()), made.provides, made.outputs)
    assert decided(setup(signals=(measured,)), inputs()).flaws == []
    waiting = decide(setup(signals=(measured,)), inputs(), frozenset())
    assert not isinstance(waiting, Decision)
    next(waiting).value.close()  # type: ignore[attr-defined]  # a coroutine


@pytest.mark.parametrize(
    ("header", "profiles", "expected"),
    [
        pytest.param({}, ("decode", "prefill"), ["decode"], id="absent: the default"),
        pytest.param({"epp-profile": " prefill "}, ("decode", "prefill"), ["prefill"], id="trimmed"),
        pytest.param({"epp-profile": "nonsense"}, ("only",), ["only"], id="one profile: always that"),
    ],
)
def test_a_header_names_the_profile(header: dict[str, str], profiles: tuple[str, ...], expected: list[str]) -> None:
    assert header_profile_handler(testing.request(headers=header), profiles, {}) == expected


@pytest.mark.parametrize("value", ["Prefill", "unknown"])
def test_a_header_that_names_no_profile_is_refused_by_name_and_value(value: str) -> None:
    with pytest.raises(Refused, match=f"epp-profile names no profile: '{value}'; have: decode, prefill"):
        header_profile_handler(testing.request(headers={"epp-profile": value}), ("decode", "prefill"), {})
