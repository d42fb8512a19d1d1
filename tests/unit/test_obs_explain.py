import numpy as np
import pytest

from epp.obs.explain import explain
from epp.testing import endpoints
from epp.types import Decision, Endpoint, Flaw, Refused, Run, Spent, Step, Vote

E = endpoints(waiting=[0, 0, 0]).records


def decision(names: tuple[str, ...] = ("queue-scorer", "kv-cache-utilization-scorer")) -> Decision:
    made = Decision("r-1", "base", 5.0, 5, primary="default", took_s=0.00018)
    votes = [Vote(name, weight, np.array([0.5, 1.0, 0.0])) for weight, name in enumerate(names, 2)]
    totals = sum((vote.weight * vote.scores for vote in votes), np.zeros(3))
    made.runs["default"] = Run("default", E, votes=votes, totals=totals, picked=(E[1],), picked_rows=(1,))
    return made


def test_the_table_aligns_votes_weights_and_totals() -> None:
    assert explain(decision()).splitlines() == [
        "request r-1   model base   5 endpoints",
        "",
        "profile default",
        "                             kv-cache-",
        "                    queue  utilization",
        "  endpoint             ×2           ×3  total",
        "▶ default/e1  1.00 → 2.00  1.00 → 3.00  5.000",
        "  default/e0  0.50 → 1.00  0.50 → 1.50  2.500",
        "  default/e2  0.00 → 0.00  0.00 → 0.00  0.000",
        "picked default/e1 at 10.0.0.2:8000, 2.500 ahead of the next",
    ]


def test_those_left_out_stand_below_with_the_filter_that_removed_them() -> None:
    made = decision()
    made.steps.append(Step("cooling", ("default/e8",)))
    made.run.steps.append(Step("label-selector-filter", tuple(f"default/x{i}" for i in range(7))))
    lines = explain(made).splitlines()
    assert lines[1] == "✗ default/e8  left out by cooling"
    assert lines[-7:-1] == [
        *[f"✗ default/x{i}  left out by label-selector-filter" for i in range(5)],
        "✗ 2 more  left out by label-selector-filter",
    ]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_many_scorers_still_fit(width: int) -> None:
    names = ("queue-scorer", "kv-cache-utilization-scorer", "prefix-cache-scorer", "lora-affinity-scorer", "mine")
    made = decision(names)
    made.spent = [Spent(name, "scorer", 0.00001) for name in names]
    assert max(map(len, explain(made, width=width).splitlines())) <= width


def test_where_weighted_votes_do_not_fit_the_raw_ones_stand_alone() -> None:
    lines = explain(decision(), width=40).splitlines()
    assert "▶ default/e1   1.00         1.00  5.000" in lines


def test_only_the_best_candidates_are_told() -> None:
    lines = explain(decision(), most_rows=1).splitlines()
    assert "  … and 2 more, none above 2.500" in lines
    assert not any("default/e0" in line for line in lines)


def test_without_scorers_all_are_equal() -> None:
    lines = explain(decision(())).splitlines()
    assert lines[3:5] == ["  endpoint    total", "  default/e0  0.000"]


def test_a_pick_that_was_not_the_highest_claims_no_lead() -> None:
    made = decision()
    made.run.picked = (E[2],)
    assert explain(made).splitlines()[-1] == "picked default/e2 at 10.0.0.3:8000"


def test_a_refused_run_says_by_whom() -> None:
    made = Decision("r-1", "base", 5.0, 3, primary="default")
    made.runs["default"] = Run("default", refused=Refused(429, "nobody left", by="my-filter"))
    assert explain(made).splitlines()[-1] == "refused: 429 nobody left (by my-filter)"


def test_other_profiles_are_told_apart() -> None:
    made = decision()
    made.runs["prefill"] = Run("prefill", picked=(Endpoint("p", "::1", 80),))
    assert explain(made).splitlines()[-2:] == [
        "profile prefill (not the one that counts)",
        "picked default/p at [::1]:80",
    ]


def test_remarks_and_times_come_last() -> None:
    made = decision()
    made.notes.append("a probe")
    made.flaws.append(Flaw("mine", "nan"))
    made.flaws.append(Flaw("yours", "exception", "KeyError('x')"))
    made.spent = [Spent("queue-scorer", "scorer", 0.00001), Spent("max-score-picker", "picker", 0.000004)]
    assert explain(made).splitlines()[-6:] == [
        "",
        "note: a probe",
        "flaw: mine: nan",
        "flaw: yours: exception (KeyError('x'))",
        "",
        "took 180 µs: queue-scorer 10, max-score-picker 4",
    ]


def test_an_empty_decision_is_one_line() -> None:
    assert explain(Decision("", "", 0.0, 1)) == "request -   model -   1 endpoint\n"


def test_milliseconds_are_told_in_a_sentence_an_endpoint() -> None:
    made = decision()
    keys = [made.run.candidates[row].key for row in np.argsort(-made.run.totals, kind="stable")]
    made.signals.update({"queue_wait_ms": made.run.totals * 100.0, "cached_blocks": np.zeros(len(keys))})
    told = explain(made).splitlines()[-len(keys) :]
    assert told == [
        f"{key}: queue wait {total * 100.0:.0f} ms" for key, total in zip(keys, -np.sort(-made.run.totals), strict=True)
    ]
