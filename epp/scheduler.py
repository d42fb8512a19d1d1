"""One run of one profile: filters narrow, scorers vote, the picker chooses. Pure: time and chance are handed in.

A plug-in that raises or returns nonsense costs its own vote only; the run says so in `flaws`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from epp.plugins import PASSED_ON, raised
from epp.types import Ballot, Decision, Endpoint, Endpoints, Flaw, Refused, Rows, Run, Scores, Spent, Step

# What is looked up once here is not looked up in numpy for each request.
FLOAT: Final = np.dtype(np.float64)
BOOL: Final = np.dtype(np.bool_)
ROW: Final = np.dtype(np.intp)
NDARRAY: Final = np.ndarray
ASARRAY: Final = np.asarray
EMPTY: Final = np.empty
ADD_UP: Final = np.add.reduce
NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A plug-in ready to be called: `keys` name, in order, the values it gets."""

    name: str
    call: Callable[..., Any]
    keys: tuple[str, ...]

    def answer(self, values: dict[str, Any]) -> Any:  # whatever it returns
        """Call it with its part of the values."""
        keys, call = self.keys, self.call
        n = len(keys)
        # Spelled out, since a tuple of arguments costs as much as the call.
        if n == 1:
            return call(values[keys[0]])
        if n == 2:
            return call(values[keys[0]], values[keys[1]])
        if n == 3:
            return call(values[keys[0]], values[keys[1]], values[keys[2]])
        return call(*[values[key] for key in keys])


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A named list of filters, weighted scorers and one picker."""

    name: str
    filters: tuple[Bound, ...]
    scorers: tuple[tuple[Bound, float], ...]
    picker: Bound
    voters: tuple[tuple[str, float], ...] = field(init=False, repr=False)
    """Names and weights of the scorers."""
    weights: npt.NDArray[np.float64] = field(init=False, repr=False)
    """The weights as a column, shape (k, 1)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "voters", tuple([(bound.name, weight) for bound, weight in self.scorers]))
        object.__setattr__(self, "weights", np.array([[weight] for _, weight in self.scorers]).reshape(-1, 1))


@final
class Context:
    """What one decision is made from. `values` holds request, endpoints, now, rng and every signal by key."""

    __slots__ = ("awaited", "clock", "columns", "decision", "endpoints", "rows", "suspended", "values")

    def __init__(  # noqa: PLR0917 - fields of a record
        self,
        values: dict[str, Any],  # each value has the type its reader declares
        columns: frozenset[str],
        rows: Rows | None,
        decision: Decision,
        clock: Callable[[], float],
        suspended: frozenset[str] = NOBODY,
    ) -> None:
        self.values = values
        self.columns = columns
        """Keys of `values` that are columns over the table."""
        self.rows = rows
        """Rows of the table that may be picked; None = all."""
        self.decision = decision
        self.clock = clock
        self.suspended = suspended
        self.endpoints: Endpoints = values["endpoints"]
        self.awaited: Any = None
        """What a slow signal answered, until that is awaited."""

    def narrowed(self, rows: Rows | None) -> dict[str, Any]:
        """The values as plug-ins see them when only `rows` are left."""
        if rows is None:
            return self.values
        values = self.values.copy()
        values["endpoints"] = self.endpoints.take(rows)
        for key in self.columns:
            if key in values:
                values[key] = values[key][rows]
        return values

    def ask(self, bound: Bound, place: str, values: dict[str, Any]) -> Any:
        """The plug-in's answer; None if it is suspended or failed, noted in the decision."""
        decision = self.decision
        if self.suspended and bound.name in self.suspended:
            decision.flaws.append(Flaw(bound.name, "suspended"))
            return None
        clock = self.clock
        began = clock()
        try:
            answer = bound.answer(values)
        except PASSED_ON:
            decision.spent.append(Spent(bound.name, place, clock() - began))
            raise
        except BaseException as error:  # noqa: BLE001 - a stranger's code: its vote is left out and counted
            decision.flaws.append(Flaw(bound.name, "exception", raised(error)))
            answer = None
        decision.spent.append(Spent(bound.name, place, clock() - began))
        return answer


def run(profile: Profile, context: Context) -> Run:
    """Who is left, who voted how and who is picked; a run that leaves nobody says so in `refused`."""
    result = Run(profile.name)
    rows = result.rows = _filter(profile, context, result) if profile.filters else context.rows
    values = context.narrowed(rows)
    endpoints: Endpoints = values["endpoints"]
    candidates = result.candidates = endpoints.records
    if not candidates:
        by = result.steps[-1].by if result.steps else profile.name
        result.refused = Refused(429, "no endpoints available for the given request", "rejected-saturated", by)
        return result
    result.totals = _vote(profile, context, values, result)
    chosen = _pick(profile, context, values, result.totals)
    result.picked = tuple([candidates[row] for row in chosen])
    result.picked_rows = tuple(chosen if rows is None else rows[chosen].tolist())
    return result


def _filter(profile: Profile, context: Context, result: Run) -> Rows | None:
    """Table rows that pass every filter, in the profile's order; None = all. Stops when nobody is left."""
    rows = context.rows
    for bound in profile.filters:
        values = context.narrowed(rows)
        endpoints: Endpoints = values["endpoints"]
        if not len(endpoints):
            break
        mask = checked_mask(context, bound, context.ask(bound, "filter", values), len(endpoints))
        if mask is None or bool(mask.all()):
            continue
        result.steps.append(Step(bound.name, keys_at(endpoints.records, ~mask)))
        kept = np.flatnonzero(mask)
        rows = kept if rows is None else rows[kept]
    return rows


def keys_at(records: tuple[Endpoint, ...], mask: Any) -> tuple[str, ...]:
    """The keys of the endpoints where a mask of shape (n,) is true."""
    return tuple([records[row].key for row in np.flatnonzero(mask).tolist()])


def _array(answer: Any) -> Any:
    """The array that a plug-in answered, without what it may have made of that class; None if it is none."""
    # By its type: what an object says its class is is its own invention.
    kind = type(answer)
    return answer if kind is NDARRAY else ASARRAY(answer) if issubclass(kind, NDARRAY) else None


def checked_mask(context: Context, bound: Bound, mask: Any, n: int) -> Any:
    """The mask, or None if it is not one of shape (n,)."""
    if mask is None:
        return None
    mask = _array(mask)
    if mask is None or mask.dtype != BOOL or mask.shape != (n,):
        context.decision.flaws.append(Flaw(bound.name, "shape", f"wanted a boolean mask of shape ({n},)"))
        return None
    return mask


def checked_column(context: Context, bound: Bound, values: Any, default: Any, n: int) -> Any:
    """A signal's column, read-only; `default` everywhere if it is none of shape (n,), and where it is not finite."""
    if values is None:
        return np.full(n, default)
    values = _array(values)
    if values is None or values.shape != (n,) or (values.dtype is not FLOAT and values.dtype.kind not in "fiub"):
        context.decision.flaws.append(Flaw(bound.name, "shape", f"wanted numbers of shape ({n},)"))
        return np.full(n, default)
    # argmin and argmax point at a NaN if there is one, so the span is finite exactly if every part is (short of
    # overflow, which no count reaches); on short columns they take a fifth of a reduction's time.
    if n and not isfinite(values.item(values.argmax()) - values.item(values.argmin())):
        context.decision.flaws.append(Flaw(bound.name, "nan", "its default holds there"))
        return np.nan_to_num(values, nan=default, posinf=default, neginf=default)
    shared = values.view()
    shared.setflags(write=False)
    return shared


def _vote(profile: Profile, context: Context, values: dict[str, Any], result: Run) -> Scores:
    n, voters, weights = len(result.candidates), profile.voters, profile.weights
    table = EMPTY((len(voters) + 1, n))
    shape = (n,)
    absent: list[int] = []
    for row, (bound, _) in enumerate(profile.scorers):
        scores = context.ask(bound, "scorer", values)
        # `_is_vote` alone says no, and why; the first test spares nearly all votes its call.
        if (type(scores) is NDARRAY and scores.dtype is FLOAT and scores.shape == shape) or _is_vote(
            context, bound, scores, n
        ):
            table[row] = _array(scores)
        else:
            absent.append(row)
    if absent:
        table, weights = np.delete(table, absent, 0), np.delete(weights, absent, 0)
        voters = tuple([voter for row, voter in enumerate(voters) if row not in absent])
    votes = table[:-1]
    totals: Scores = table[-1]
    if not _in_range(votes):
        for row, (by, _) in enumerate(voters):
            votes[row] = _clamped(context, by, votes[row])
    ADD_UP(votes * weights, axis=0, out=totals)
    result.votes = Ballot(voters, table)
    return totals


def _is_vote(context: Context, bound: Bound, scores: Any, n: int) -> bool:
    """Whether these are float64 of shape (n,); None, of who did not vote, is noted already."""
    votes = _array(scores)
    if votes is not None and votes.dtype == FLOAT and votes.shape == (n,):
        return True
    if scores is not None:
        context.decision.flaws.append(Flaw(bound.name, "shape", f"wanted float64 of shape ({n},)"))
    return False


def _in_range(votes: npt.NDArray[np.float64]) -> bool:
    # NaN makes both comparisons false, so one test finds every fault. On small arrays finding where the extremes are
    # (a NaN, if there is one) takes a fifth of the time that numpy's reductions take.
    return not votes.size or bool(votes.item(votes.argmin()) >= 0.0 and votes.item(votes.argmax()) <= 1.0)


def _clamped(context: Context, by: str, scores: Scores) -> Scores:
    """Within [0, 1], NaN as 0; noted if that changes anything."""
    if _in_range(scores):
        return scores
    rule, done = ("nan", "NaN counts as 0") if bool(np.isnan(scores).any()) else ("range", "cut off at 0 and 1")
    context.decision.flaws.append(Flaw(by, rule, done))
    clamped: Scores = np.clip(np.nan_to_num(scores, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
    return clamped


def _pick(profile: Profile, context: Context, values: dict[str, Any], totals: Scores) -> list[int]:
    values = values.copy()
    values["scores"] = totals
    chosen = _rows_of(context.ask(profile.picker, "picker", values), len(totals))
    if len(chosen) == 1:
        if 0 <= chosen[0] < len(totals):
            return chosen
    elif chosen and min(chosen) >= 0 and max(chosen) < len(totals) and len(set(chosen)) == len(chosen):
        return chosen
    context.decision.flaws.append(Flaw(profile.picker.name, "rows", "the highest total was taken instead"))
    return [int(totals.argmax())]


def _rows_of(answer: Any, n: int) -> list[int]:
    """The rows a picker named, as far as there are more than n; none if it named anything else."""
    try:
        named = _array(answer)
        if named is not None and named.ndim == 1 and (named.dtype is ROW or named.dtype.kind == "i"):
            rows: list[int] = named.tolist()
            return rows
        return [int(row) for row in islice(answer, n + 1)]
    except PASSED_ON:
        raise
    except BaseException:  # noqa: BLE001 - a picker may answer lazily, or with what is no row
        return []
