import numpy as np
import pytest

from epp.obs.spans import Past, orchestration
from epp.testing import endpoints
from epp.types import Decision, Refused, Run, Spent, Step, Vote

E = endpoints(waiting=[0] * 7).records
END_NS = 1_000_000
COMMON = {"gen_ai.request.model": "base", "gen_ai.request.id": "r-1"}


def decision(*spent: tuple[str, str, int]) -> Decision:
    """`spent`: plug-in, place and microseconds of each call."""
    made = Decision("r-1", "base", 5.0, 7, primary="default", took_s=1e-6 * sum(us for *_, us in spent))
    made.spent = [Spent(by, place, us * 1e-6) for by, place, us in spent]
    return made


def spans(made: Decision) -> Past:
    return orchestration(made, priority=-1, end_ns=END_NS, plugin_types={"mine": "queue-scorer"})


def tree(past: Past) -> list[object]:
    """Names and times in microseconds, inner spans in lists."""
    times = [(past.name, past.start_ns // 1000, past.end_ns // 1000)]
    return times + [tree(inner) for inner in past.inner]


def full() -> Decision:
    made = decision(
        ("handler", "profile_handler", 10),
        ("prefix", "signal", 100),
        ("first", "filter", 20),
        ("second", "filter", 30),
        ("mine", "scorer", 40),
        ("other", "scorer", 50),
        ("max-score-picker", "picker", 60),
        ("handler", "profile_handler", 10),
    )
    totals = np.arange(6.0)
    votes = [Vote("mine", 2.0, np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))]
    made.runs["default"] = Run("default", E[:6], [Step("first", (E[6].key,))], votes, totals, (E[5],), (5,))
    return made


def test_each_stage_lies_where_its_calls_were() -> None:
    assert tree(spans(full())) == [
        ("gateway.request_orchestration", 680, 1000),
        [
            ("run_scheduler_profile", 790, 990),
            [("filter_endpoints", 790, 840)],
            [
                ("llm_d.epp.scoring", 840, 930),
                [("llm_d.epp.scorer.queue-scorer", 840, 880)],
                [("llm_d.epp.scorer.other", 880, 930)],
            ],
            [("pick_endpoints", 930, 990)],
        ],
    ]


def test_stages_tell_how_many_endpoints_they_saw() -> None:
    root = spans(full())
    assert (root.server, root.attributes) == (True, {"target_model": "base", "request_prio": -1})
    (profile,) = root.inner
    filters, scoring, pick = profile.inner
    assert profile.attributes == {"llm_d.epp.scheduling.profile.name": "default"}
    assert filters.attributes == COMMON | {
        "llm_d.epp.filter.candidate_endpoints": 7,
        "llm_d.epp.filter.filtered_endpoints": 6,
    }
    assert scoring.attributes == COMMON | {"llm_d.epp.scorer.count": 2, "llm_d.epp.scoring.candidate_endpoints": 6}
    assert pick.attributes == COMMON | {
        "llm_d.epp.picker.candidate_endpoints": 6,
        "llm_d.epp.picker.top_endpoints": [f"default/e{row}" for row in (5, 4, 3, 2, 1)],
        "llm_d.epp.picker.top_scores": [5.0, 4.0, 3.0, 2.0, 1.0],
    }


def test_scorers_tell_how_they_voted() -> None:
    mine, other = spans(full()).inner[0].inner[1].inner
    assert mine.attributes == {
        "llm_d.epp.scorer.type": "queue-scorer",
        "llm_d.epp.scorer.name": "mine",
        "llm_d.epp.scorer.weight": 2.0,
        "llm_d.epp.scorer.candidate_endpoints": 6,
        "llm_d.epp.scorer.endpoints_scored": 6,
        "llm_d.epp.scorer.score.max": 0.5,
        "llm_d.epp.scorer.score.avg": pytest.approx(0.25),
    }
    # It was called, but its vote was left out.
    assert other.attributes == {
        "llm_d.epp.scorer.type": "other",
        "llm_d.epp.scorer.name": "other",
        "llm_d.epp.scorer.candidate_endpoints": 6,
        "llm_d.epp.scorer.endpoints_scored": 0,
    }


def test_each_profile_has_its_own_calls() -> None:
    made = decision(("mine", "scorer", 10), ("p", "picker", 20), ("mine", "scorer", 30), ("p", "picker", 40))
    for name in ("prefill", "decode"):
        made.runs[name] = Run(name, E[:1], votes=[Vote("mine", 1.0, np.ones(1))], totals=np.ones(1), picked=E[:1])
    assert [(span.start_ns // 1000, span.end_ns // 1000) for span in spans(made).inner] == [(900, 930), (930, 1000)]


def test_a_refused_profile_ends_with_its_filters() -> None:
    made = decision(("first", "filter", 10), ("mine", "scorer", 20), ("p", "picker", 20))
    made.runs["prefill"] = Run("prefill", steps=[Step("first", ("a", "b"))], refused=Refused(429, "nobody left"))
    made.runs["decode"] = Run("decode", E[:1], totals=np.ones(1), picked=E[:1])
    prefill, decode = spans(made).inner
    assert [inner.name for inner in prefill.inner] == ["filter_endpoints"]
    assert prefill.inner[0].attributes["llm_d.epp.filter.candidate_endpoints"] == 2
    assert (prefill.end_ns // 1000, decode.start_ns // 1000) == (960, 960)


def test_a_profile_without_calls_takes_no_time() -> None:
    made = Decision("r-1", "base", 5.0, 7, primary="any")
    made.runs["any"] = Run("any", picked=E[:1])
    (profile,) = spans(made).inner
    assert (profile.start_ns, profile.end_ns) == (END_NS, END_NS)
