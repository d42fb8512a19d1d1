"""The last decisions, kept in bounded memory for /debug/decisions: no prompt text, no header values but four."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, final

import numpy as np
from xxhash import xxh3_64_hexdigest

from epp.types import Ballot, Decision, Refused, Request, Run, Scores, Step, Vote

MOST_BYTES = 16 << 20
NARROW = np.dtype(np.float32)
FEW = 32
"""Votes on so many candidates are kept as they are: less would be saved than copying them takes."""
NONE: list[Any] = []
NO_SIGNALS: dict[str, Any] = {}
"""Shared by all that is kept: thousands of empty lists would be walked by every full garbage collection."""


@final
class Recorded:
    """One decision and the little of its request that may be shown."""

    __slots__ = (
        "at", "body_bytes", "decision", "fairness_id", "incoming_model", "objective", "priority", "refused", "size",
    )  # fmt: skip

    def __init__(self, at: float, request: Request, decision: Decision, refused: Refused | None, size: int) -> None:
        self.at = at
        """Seconds since 1970."""
        self.incoming_model = request.incoming_model
        self.objective = request.objective
        self.fairness_id = request.fairness_id
        self.priority = request.priority
        self.body_bytes = request.body_bytes
        self.decision = decision
        """Of the signals only columns of milliseconds, float32, of the primary run's candidates."""
        self.refused = refused
        self.size = size
        """Bytes it is reckoned to hold."""


class Decisions:
    """A ring of recent decisions, at most `max_bytes` of them. `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time, *, max_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._ring: deque[Recorded] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ring)

    def record(self, request: Request, decision: Decision, refused: Refused | None = None) -> None:
        """Keep a decision, with the refusal it ended in. It may lose its signals afterwards."""
        slim = _slim(decision)
        size = _size(slim) + _told_size(request, decision, refused)
        self._ring.append(Recorded(self._clock(), request, slim, None if refused is None else _bare(refused), size))
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._ring.popleft().size

    @staticmethod
    def id_of(decision: Decision) -> str:
        """A short name for the decision: the same each time, and in no other decision of any picker."""
        return xxh3_64_hexdigest(f"{decision.request_id} {decision.decided_at!r}".encode())

    def find(self, name: str) -> Recorded | None:
        """The decision with this id, if it is still kept."""
        return next((recorded for recorded in self._ring if self.id_of(recorded.decision) == name), None)

    def latest(self, limit: int, request_id: str = "") -> list[Recorded]:
        """The newest first; only those of `request_id` if it is given."""
        found: Iterator[Recorded] = reversed(self._ring)
        if request_id:
            found = (recorded for recorded in found if recorded.decision.request_id == request_id)
        return list(islice(found, limit))


def milliseconds(decision: Decision) -> dict[str, Any]:
    """Signals that are columns and whose name ends in `_ms`, float32 over the candidates of the primary run."""
    run = decision.runs.get(decision.primary)
    if run is None or not run.candidates:
        return NO_SIGNALS
    found: dict[str, Any] = NO_SIGNALS
    for name, value in decision.signals.items():
        if name.endswith("_ms") and isinstance(value, np.ndarray) and value.shape == (decision.table_size,):
            column = (value if run.rows is None else value[run.rows]).astype(NARROW)
            found = {**found, name: column}
    return found


def _slim(decision: Decision) -> Decision:
    return Decision(
        decision.request_id,
        decision.model,
        decision.decided_at,
        decision.table_size,
        decision.primary,
        {name: _slim_run(run) for name, run in decision.runs.items()},
        decision.steps or NONE,
        milliseconds(decision),
        decision.flaws or NONE,
        decision.spent,
        decision.took_s,
        decision.notes or NONE,
    )


def _slim_run(run: Run) -> Run:
    votes, totals = _narrow(run)
    refused = None if run.refused is None else _bare(run.refused)
    return Run(run.profile, run.candidates, run.steps or NONE, votes, totals, run.picked, run.picked_rows, refused)


def _narrow(run: Run) -> tuple[Ballot | Sequence[Vote], Scores]:
    """Votes and totals in half the memory if they are many; a reader of the decision needs no more digits.

    Scores means float64 everywhere else. They are copies: what a scorer returned may be a live column; a ballot's table
    is the decision's own.
    """
    votes = run.votes
    if not isinstance(votes, Ballot):
        return [Vote(vote.by, vote.weight, vote.scores.astype(NARROW)) for vote in votes], run.totals.astype(NARROW)
    if len(run.candidates) <= FEW:
        return votes, run.totals
    table = votes.table.astype(NARROW)
    return Ballot(votes.voters, table), table[-1]


def _bare(refused: Refused) -> Refused:
    """Without traceback, whose frames would keep the request's body alive."""
    return Refused(refused.status, refused.message, refused.reason, refused.by)


def _told_size(request: Request, decision: Decision, refused: Refused | None) -> int:
    """Bytes of what clients chose, ASCII as it mostly is."""
    size = len(decision.request_id) + len(decision.model) + len(request.incoming_model)
    size += len(request.objective) + len(request.fairness_id)
    return size if refused is None else size + len(refused.message)


def _size(decision: Decision) -> int:
    """Bytes, as measured on CPython 3.11 for each part and rounded up."""
    size = 1_000 + 90 * len(decision.spent) + 200 * len(decision.flaws) + 150 * len(decision.notes)
    size += sum([len(flaw.detail) for flaw in decision.flaws]) if decision.flaws else 0
    size += _left_out_size(decision.steps) if decision.steps else 0
    if decision.signals:
        size += sum([150 + int(column.nbytes) for column in decision.signals.values()])
    for run in decision.runs.values():
        n = len(run.candidates)
        size += 700 + 8 * n + (len(run.votes) + 1) * (200 + (8 if n <= FEW else 4) * n)
        size += _left_out_size(run.steps) if run.steps else 0
    return size


def _left_out_size(steps: list[Step]) -> int:
    return sum(120 + 100 * len(step.removed) for step in steps)


def view(recorded: Recorded) -> dict[str, object]:
    """A decision as JSON: who could be picked, who was left out by what, every vote, who was picked."""
    decision = recorded.decision
    return {
        "id": Decisions.id_of(decision),
        "at": round(recorded.at, 3),
        "took_ms": round(decision.took_s * 1e3, 3),
        "request": {
            "id": decision.request_id,
            "model": recorded.incoming_model,
            "target_model": decision.model,
            "objective": recorded.objective,
            "fairness_id": recorded.fairness_id,
            "priority": recorded.priority,
            "body_bytes": recorded.body_bytes,
        },
        "endpoints": decision.table_size,
        "left_out": _left_out(decision.steps),
        "profile": decision.primary,
        "picked": [endpoint.key for endpoint in decision.picked],
        "refused": _refusal(recorded.refused),
        "runs": [
            _run_view(run, decision.signals if name == decision.primary else NO_SIGNALS)
            for name, run in decision.runs.items()
        ],
        "notes": decision.notes,
        # A flaw's detail may quote the prompt.
        "flaws": [{"plugin": flaw.by, "rule": flaw.rule} for flaw in decision.flaws],
        "spent": [
            {"plugin": spent.by, "place": spent.place, "ms": round(spent.seconds * 1e3, 4)} for spent in decision.spent
        ],
    }


def _run_view(run: Run, signals: dict[str, Any]) -> dict[str, object]:
    totals = run.totals.tolist()
    order = sorted(range(len(totals)), key=totals.__getitem__, reverse=True)
    votes = [(vote.by, vote.weight, vote.scores.tolist()) for vote in run.votes]
    expected = {name: values.tolist() for name, values in signals.items()}
    return {
        "profile": run.profile,
        "left_out": _left_out(run.steps),
        "picked": [endpoint.key for endpoint in run.picked],
        "margin": round(run.margin, 6),
        "refused": _refusal(run.refused),
        "weights": {vote.by: vote.weight for vote in run.votes},
        "candidates": [
            {
                "endpoint": run.candidates[row].key,
                "address": run.candidates[row].host_port,
                "total": round(totals[row], 6),
                "votes": {by: round(scores[row], 6) for by, _, scores in votes},
                "weighted": {by: round(weight * scores[row], 6) for by, weight, scores in votes},
            }
            | _expected(expected, row)
            for row in order
        ],
    }


def _expected(milliseconds: dict[str, list[float]], row: int) -> dict[str, object]:
    told = {name: round(values[row], 1) for name, values in milliseconds.items()}
    return {"milliseconds": told} if told else {}


def _left_out(steps: list[Step]) -> list[dict[str, object]]:
    return [{"by": step.by, "endpoints": step.removed} for step in steps]


def _refusal(refused: Refused | None) -> dict[str, object] | None:
    # The message may quote a header.
    if refused is None:
        return None
    return {"status": refused.status, "code": refused.code, "reason": refused.reason, "by": refused.by}
