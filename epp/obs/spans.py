"""A decision as a tree of spans, made when it is over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from epp.types import Decision, Run, Spent, Vote

TOP = 5
"""Endpoints told by a pick_endpoints span."""
Value = str | int | float | list[str] | list[float]


@dataclass(frozen=True, slots=True)
class Past:
    """A span that is over, and those within it. Times in nanoseconds since 1970."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value] = field(default_factory=dict)
    inner: tuple[Past, ...] = ()
    server: bool = False


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a plug-in with its place in time."""

    spent: Spent
    start_ns: int
    end_ns: int


def orchestration(decision: Decision, *, priority: int, end_ns: int, plugin_types: Mapping[str, str]) -> Past:
    """The span of the whole decision. Durations are measured; that one call begins where another ended is assumed."""
    start_ns = end_ns - round(decision.took_s * 1e9)
    calls = _placed(decision.spent, start_ns)
    shared = {"gen_ai.request.model": decision.model, "gen_ai.request.id": decision.request_id}
    profiles = []
    for run in decision.runs.values():
        own, calls = _split(run, calls)
        profiles.append(_profile(run, own or [_Call(Spent("", "", 0.0), end_ns, end_ns)], shared, plugin_types))
    about: dict[str, Value] = {"target_model": decision.model, "request_prio": priority}
    return Past("gateway.request_orchestration", start_ns, end_ns, about, tuple(profiles), server=True)


def _placed(spent: Sequence[Spent], start_ns: int) -> list[_Call]:
    calls = []
    for one in spent:
        end_ns = start_ns + round(one.seconds * 1e9)
        calls.append(_Call(one, start_ns, end_ns))
        start_ns = end_ns
    return [call for call in calls if call.spent.place in {"filter", "scorer", "picker"}]


def _split(run: Run, calls: list[_Call]) -> tuple[list[_Call], list[_Call]]:
    """The calls of this run, which its picker ends or, if it refused, its filters; and those of later runs."""
    places = [call.spent.place for call in calls]
    if run.refused is not None:
        end = next((at for at, place in enumerate(places) if place != "filter"), len(places))
    else:
        end = places.index("picker") + 1 if "picker" in places else 0
    return calls[:end], calls[end:]


def _profile(run: Run, calls: list[_Call], shared: Mapping[str, Value], plugin_types: Mapping[str, str]) -> Past:
    stages: tuple[Past, ...] = (_filters(run, calls, shared),)
    if run.refused is None:
        stages += (_scoring(run, calls, shared, plugin_types), _pick(run, calls, shared))
    name: dict[str, Value] = {"llm_d.epp.scheduling.profile.name": run.profile}
    return Past("run_scheduler_profile", calls[0].start_ns, calls[-1].end_ns, name, stages)


def _filters(run: Run, calls: list[_Call], shared: Mapping[str, Value]) -> Past:
    ends = [call.end_ns for call in calls if call.spent.place == "filter"]
    left = len(run.candidates)
    about = {
        "llm_d.epp.filter.candidate_endpoints": left + sum(len(step.removed) for step in run.steps),
        "llm_d.epp.filter.filtered_endpoints": left,
    }
    start_ns = calls[0].start_ns
    return Past("filter_endpoints", start_ns, ends[-1] if ends else start_ns, {**shared, **about})


def _scoring(run: Run, calls: list[_Call], shared: Mapping[str, Value], plugin_types: Mapping[str, str]) -> Past:
    votes = {vote.by: vote for vote in run.votes}
    scorers = [call for call in calls if call.spent.place == "scorer"]
    about = {
        "llm_d.epp.scorer.count": len(scorers),
        "llm_d.epp.scoring.candidate_endpoints": len(run.candidates),
    }
    inner = tuple(_scorer(run, call, votes.get(call.spent.by), plugin_types) for call in scorers)
    start_ns = scorers[0].start_ns if scorers else calls[-1].start_ns
    end_ns = scorers[-1].end_ns if scorers else start_ns
    return Past("llm_d.epp.scoring", start_ns, end_ns, {**shared, **about}, inner)


def _scorer(run: Run, call: _Call, vote: Vote | None, plugin_types: Mapping[str, str]) -> Past:
    name = call.spent.by
    kind = plugin_types.get(name, name)
    about: dict[str, Value] = {
        "llm_d.epp.scorer.type": kind,
        "llm_d.epp.scorer.name": name,
        "llm_d.epp.scorer.candidate_endpoints": len(run.candidates),
        "llm_d.epp.scorer.endpoints_scored": 0 if vote is None else len(vote.scores),
    }
    if vote is not None:
        about["llm_d.epp.scorer.weight"] = vote.weight
    if vote is not None and len(vote.scores):
        about["llm_d.epp.scorer.score.max"] = float(vote.scores.max())
        about["llm_d.epp.scorer.score.avg"] = float(vote.scores.mean())
    return Past(f"llm_d.epp.scorer.{kind}", call.start_ns, call.end_ns, about)


def _pick(run: Run, calls: list[_Call], shared: Mapping[str, Value]) -> Past:
    totals = run.totals.tolist()
    best = sorted(range(len(totals)), key=totals.__getitem__, reverse=True)[:TOP]
    about: dict[str, Value] = {
        "llm_d.epp.picker.candidate_endpoints": len(run.candidates),
        "llm_d.epp.picker.top_endpoints": [run.candidates[row].key for row in best],
        "llm_d.epp.picker.top_scores": [totals[row] for row in best],
    }
    return Past("pick_endpoints", calls[-1].start_ns, calls[-1].end_ns, {**shared, **about})
