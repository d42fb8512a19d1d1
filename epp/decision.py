"""What a decision says: who was left, who voted how, who was picked, and what went wrong on the way.

A dozen of these records are made for each request; msgspec makes one in a third of a dataclass's time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from epp.endpoints import Endpoint, Rows, Scores
from epp.refusals import Refused

NOTHING: Scores = np.zeros(0)


class Step(Struct, frozen=True):
    """What one filter (or `subset`, `cooling`) left out: the keys of the endpoints it removed."""

    by: str
    removed: tuple[str, ...]


class Vote(Struct):
    """One scorer's votes over the candidates of a run, before weighting, shape (n,)."""

    by: str
    weight: float
    scores: Scores


class Ballot(Sequence[Vote]):
    """The votes of a run in one table, each made into a Vote when somebody looks.

    One array is checked, added up and kept in a third of the time that one for each scorer takes.
    """

    __slots__ = ("table", "voters")

    def __init__(self, voters: tuple[tuple[str, float], ...], table: npt.NDArray[Any]) -> None:
        self.voters = voters
        """Name and weight of each scorer."""
        self.table = table
        """A row for each scorer, and last the weighted sums; shape (scorers + 1, n)."""

    def __len__(self) -> int:
        return len(self.voters)

    @overload
    def __getitem__(self, at: int) -> Vote: ...

    @overload
    def __getitem__(self, at: slice) -> list[Vote]: ...

    def __getitem__(self, at: int | slice) -> Vote | list[Vote]:
        votes = [Vote(by, weight, self.table[row]) for row, (by, weight) in enumerate(self.voters)]
        return votes[at]


class Flaw(Struct, frozen=True):
    """A plug-in's result that broke the contract and what was done about it."""

    by: str
    rule: str
    """exception, shape, range, nan, suspended, timeout or rows."""
    detail: str = ""


class Spent(Struct):
    """Seconds one plug-in took in one place."""

    by: str
    place: str
    """filter, signal, scorer, picker, profile_handler, screener or admitter."""
    seconds: float


class Run(Struct):
    """What one profile came to: who was left, who voted how, who was picked."""

    profile: str
    candidates: tuple[Endpoint, ...] = ()
    """After the filters, n of them, in the order of every vote."""
    steps: list[Step] = []
    votes: Sequence[Vote] = ()
    totals: Scores = NOTHING
    """Weighted sums, shape (n,)."""
    picked: tuple[Endpoint, ...] = ()
    """Best first; empty if the run refused."""
    picked_rows: tuple[int, ...] = ()
    """Their rows in the table the request was decided on."""
    refused: Refused | None = None
    rows: Rows | None = None
    """The candidates' rows in that table; None = all of them, or not known."""

    @property
    def margin(self) -> float:
        """Lead of the highest total over the next one; 0 with fewer than two candidates."""
        if len(self.totals) < 2:
            return 0.0
        second, first = np.partition(self.totals, -2)[-2:]
        return float(first - second)


class Decision(Struct):
    """Why a request goes where it goes. `runs` holds every profile that ran; `primary` names the one that counts.

    Once the answer is sent, only the picks are left of it.
    """

    request_id: str
    model: str
    decided_at: float
    table_size: int
    """Endpoints there were, candidates or not."""
    primary: str = ""
    runs: dict[str, Run] = {}
    steps: list[Step] = []
    """What left endpoints out before any profile ran: subset hint, cooling, screeners."""
    signals: dict[str, Any] = {}  # each signal has its own type
    """What each signal said, by name; columns over the whole table. Dropped when the answer is sent."""
    flaws: list[Flaw] = []
    spent: list[Spent] = []
    took_s: float = 0.0
    """Wall time of the decision, waiting for slow signals included."""
    notes: list[str] = []
    """Remarks a reader of the decision needs: a fallback taken, a probe sent."""

    @property
    def run(self) -> Run:
        """The primary run."""
        return self.runs[self.primary]

    @property
    def picked(self) -> tuple[Endpoint, ...]:
        return self.runs[self.primary].picked if self.primary in self.runs else ()

    def forget(self) -> None:
        """Keep who was picked and drop the rest: thousands of open responses hold their decisions."""
        self.signals, self.steps, self.spent, self.flaws = {}, [], [], []
        for run in self.runs.values():
            run.candidates, run.rows, run.votes, run.totals, run.steps = (), None, (), NOTHING, []
