import json
from copy import copy, deepcopy

import msgspec
import numpy as np

from epp.obs.decisions import Decisions, view
from epp.testing import endpoints
from epp.types import Decision, Flaw, Prompt, Refused, Request, Run, Spent, Step, Vote

from .kit import fields

EDGES = endpoints(waiting=[0, 0, 0]).records


def request(name: str = "r-1", **changes: object) -> Request:
    values = {"id": name, "model": "base", "incoming_model": "chat", "objective": "gold", "fairness_id": "team"}
    return Request(**(values | changes))  # type: ignore[arg-type]


def decision(name: str = "r-1", *, at: float = 5.0, n: int = 3) -> Decision:
    made = Decision(name, "base", at, n, primary="default", took_s=0.001)
    made.steps.append(Step("cooling", ("default/hot",)))
    made.runs["default"] = Run(
        "default",
        EDGES,
        [Step("label-selector-filter", ("default/e8", "default/e9"))],
        [Vote("queue-scorer", 2.0, np.array([0.1, 0.9, 0.5])), Vote("prefix-cache-scorer", 3.0, np.zeros(3))],
        np.array([0.2, 1.8, 1.0]),
        (EDGES[1],),
        (1,),
    )
    made.spent.append(Spent("queue-scorer", "scorer", 0.00002))
    made.flaws.append(Flaw("mine", "exception", "KeyError('what the user wrote')"))
    made.notes.append("a fallback was taken")
    return made


def ring(max_bytes: int = 1 << 20) -> Decisions:
    return Decisions(lambda: 1_700_000_000.0, max_bytes=max_bytes)


def shown(kept: Decisions) -> dict[str, object]:
    (recorded,) = kept.latest(1)
    plain: dict[str, object] = json.loads(msgspec.json.encode(view(recorded)))
    return plain


def test_a_decision_is_shown_with_its_request() -> None:
    kept = ring()
    kept.record(request(priority=-1, body_bytes=77), decision())
    seen = shown(kept)
    assert seen["request"] == {
        "id": "r-1",
        "model": "chat",
        "target_model": "base",
        "objective": "gold",
        "fairness_id": "team",
        "priority": -1,
        "body_bytes": 77,
    }
    assert (seen["at"], seen["took_ms"], seen["endpoints"]) == (1_700_000_000.0, 1.0, 3)
    assert (seen["profile"], seen["picked"], seen["notes"]) == ("default", ["default/e1"], ["a fallback was taken"])
    assert seen["flaws"] == [{"plugin": "mine", "rule": "exception"}]
    assert seen["spent"] == [{"plugin": "queue-scorer", "place": "scorer", "ms": 0.02}]


def test_a_run_is_shown_best_first_with_every_vote() -> None:
    kept = ring()
    kept.record(request(), decision())
    (run,) = shown(kept)["runs"]  # type: ignore[misc]
    assert [candidate["endpoint"] for candidate in run["candidates"]] == ["default/e1", "default/e2", "default/e0"]
    assert run["candidates"][0] == {
        "endpoint": "default/e1",
        "address": "10.0.0.2:8000",
        "total": 1.8,
        "votes": {"queue-scorer": 0.9, "prefix-cache-scorer": 0.0},
        "weighted": {"queue-scorer": 1.8, "prefix-cache-scorer": 0.0},
    }
    assert run["weights"] == {"queue-scorer": 2.0, "prefix-cache-scorer": 3.0}
    assert run["margin"] == 0.8


def test_who_was_left_out_by_what() -> None:
    kept = ring()
    kept.record(request(), decision())
    seen = shown(kept)
    assert seen["left_out"] == [{"by": "cooling", "endpoints": ["default/hot"]}]
    (run,) = seen["runs"]  # type: ignore[misc]
    assert run["left_out"] == [{"by": "label-selector-filter", "endpoints": ["default/e8", "default/e9"]}]


def test_a_refusal_is_shown_without_its_message() -> None:
    kept = ring()
    made = decision()
    made.runs["default"].picked = ()
    refused = Refused(429, "header epp-profile names no profile: 'what the user wrote'", "rejected-saturated", "mine")
    made.runs["default"].refused = refused
    kept.record(request(), made, refused)
    seen = shown(kept)
    expected = {"status": 429, "code": "ResourceExhausted", "reason": "rejected-saturated", "by": "mine"}
    assert (seen["refused"], seen["runs"][0]["refused"]) == (expected, expected)  # type: ignore[index]


def test_nothing_the_user_wrote_is_shown() -> None:
    kept = ring()
    written = request(
        headers={"authorization": ("what the user wrote",)}, prompts=[Prompt([b"what the user wrote"])], path="/x"
    )
    kept.record(written, decision())
    assert "what the user wrote" not in json.dumps(shown(kept))


def test_a_kept_refusal_holds_no_frames() -> None:
    kept = ring()
    try:
        raise Refused(503, "nobody there")
    except Refused as refused:
        kept.record(request(), decision(), refused)
    (recorded,) = kept.latest(1)
    assert recorded.refused is not None
    assert recorded.refused.__traceback__ is None


def test_the_decision_itself_is_left_as_it_is() -> None:
    made = decision()
    made.signals["cached_blocks"] = np.zeros(3)
    ring().record(request(), made)
    assert made.runs["default"].votes[0].scores.dtype == np.float64
    assert "cached_blocks" in made.signals


def test_columns_of_milliseconds_are_kept_for_the_candidates_alone() -> None:
    kept, made = ring(), decision(n=5)
    made.runs["default"].rows = np.array([0, 2, 4])
    made.signals.update(
        {"wait_ms": np.array([10.04, 1.0, 20.0, 1.0, 30.0]), "cached_blocks": np.ones(5), "lone_ms": 7.0}
    )
    kept.record(request(), made)
    (run,) = shown(kept)["runs"]  # type: ignore[misc]
    told = {each["endpoint"]: each["milliseconds"] for each in run["candidates"]}  # type: ignore[index]
    assert told == {"default/e0": {"wait_ms": 10.0}, "default/e1": {"wait_ms": 20.0}, "default/e2": {"wait_ms": 30.0}}


def test_what_is_kept_of_signals_counts_against_the_memory() -> None:
    sizes = []
    for signals in ({}, {"wait_ms": np.zeros(3)}):
        kept, made = ring(), decision()
        made.signals.update(signals)
        kept.record(request(), made)
        sizes.append(kept.latest(1)[0].size)
    assert sizes[1] - sizes[0] == 150 + 3 * 4


def test_every_field_but_signals_is_kept() -> None:
    kept = ring()
    made = decision()
    made.signals["cached_blocks"] = np.zeros(3)
    kept.record(request(), made)
    slim = kept.latest(1)[0].decision
    same = [name for name in fields(Decision) if name not in {"signals", "runs"}]
    assert [getattr(slim, name) for name in same] == [getattr(made, name) for name in same]
    assert slim.signals == {}
    run, before = slim.runs["default"], made.runs["default"]
    same = [name for name in fields(Run) if name not in {"votes", "totals"}]
    assert [getattr(run, name) for name in same] == [getattr(before, name) for name in same]
    assert [vote.scores.dtype for vote in run.votes] == [np.float32, np.float32]


def test_the_newest_come_first() -> None:
    kept = ring()
    for i in range(5):
        kept.record(request(f"r-{i}"), decision(f"r-{i}"))
    assert [recorded.decision.request_id for recorded in kept.latest(3)] == ["r-4", "r-3", "r-2"]


def test_decisions_of_one_request() -> None:
    kept = ring()
    for name, at in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        kept.record(request(name), decision(name, at=at))
    assert [recorded.decision.decided_at for recorded in kept.latest(10, "a")] == [3.0, 1.0]


def test_a_decision_is_found_by_its_id() -> None:
    kept = ring()
    for i in range(3):
        kept.record(request(), decision(at=float(i)))
    found = kept.find(kept.id_of(decision(at=1.0)))
    assert found is not None
    assert found.decision.decided_at == 1.0
    assert kept.find("nothing") is None


def test_ids_are_short_and_unlike() -> None:
    ids = {Decisions.id_of(decision(f"r-{i}", at=at)) for i in range(50) for at in (1.0, 1.1)}
    assert len(ids) == 100
    assert {len(name) for name in ids} == {16}


def test_the_oldest_go_when_the_bytes_are_used_up() -> None:
    kept = ring(max_bytes=20_000)
    for i in range(100):
        kept.record(request(f"r-{i}"), decision(f"r-{i}"))
    sizes = [recorded.size for recorded in kept.latest(100)]
    assert 0 < len(kept) < 100
    assert sum(sizes) <= 20_000 < sum(sizes) + sizes[0]
    assert kept.latest(1)[0].decision.request_id == "r-99"


def test_what_clients_and_plug_ins_wrote_counts_as_memory() -> None:
    plain, wordy = ring(), ring()
    plain.record(request(), decision())
    said = decision("i" * 40_000)
    said.flaws.append(Flaw("mine", "exception", "e" * 1_000))
    wordy.record(request(fairness_id="f" * 50_000), said)
    assert wordy.latest(1)[0].size - plain.latest(1)[0].size >= 91_000 - len("r-1" + "team")


def test_a_decision_larger_than_the_ring_is_not_kept() -> None:
    kept = ring(max_bytes=100)
    kept.record(request(), decision())
    assert len(kept) == 0


def test_a_decision_may_be_kept_with_all_it_holds() -> None:
    one = decision()
    other = deepcopy(one)
    assert other.picked == one.picked
    assert other.picked[0] is not one.picked[0]
    assert other.picked[0].key == one.picked[0].key


def test_a_hook_may_copy_what_it_is_shown() -> None:
    for one in (request(), decision(), decision().run, decision().spent[0]):
        other, names = copy(one), fields(type(one))
        assert other is not one
        assert [getattr(other, name) for name in names] == [getattr(one, name) for name in names]
