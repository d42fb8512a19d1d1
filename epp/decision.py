"""What a decision says: who was left, who voted how, who was picked, and what went wrong on the way.

What is made for each request is a plain class, which a compiled module makes and reads in no time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias, final, overload

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from epp.endpoints import Endpoint, Rows, Scores
from epp.refusals import Refused

NOTHING: Final[Scores] = np.zeros(0)


class Step(Struct, frozen=True):
    """What one filter (or `subset`, `cooling`) left out: the keys of the endpoints it removed."""

    by: str
    removed: tuple[str, ...]


class Vote(Struct):
    """One scorer's votes over the candidates of a run, before weighting, shape (n,)."""

    by: str
    weight: float
    scores: Scores


@final
class Ballot:
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
        return self._votes()[at]

    def __iter__(self) -> Iterator[Vote]:
        return iter(self._votes())

    def _votes(self) -> list[Vote]:
        return [Vote(by, weight, self.table[row]) for row, (by, weight) in enumerate(self.voters)]


Votes: TypeAlias = Ballot | Sequence[Vote]


class Flaw(Struct, frozen=True):
    """A plug-in's result that broke the contract and what was done about it."""

    by: str
    rule: str
    """exception, shape, range, nan, suspended, timeout or rows."""
    detail: str = ""


@final
class Spent:
    """Seconds one plug-in took in one place."""

    __slots__ = ("by", "place", "seconds")

    def __init__(self, by: str, place: str, seconds: float) -> None:
        self.by = by
        self.place = place
        """filter, signal, scorer, picker, profile_handler, screener or admitter."""
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[Spent], tuple[object, ...]]:
        """How it is copied."""
        return Spent, (self.by, self.place, self.seconds)

    def __repr__(self) -> str:
        return f"Spent({self.by!r}, {self.place!r}, {self.seconds!r})"


@final
class Run:
    """What one profile came to: who was left, who voted how, who was picked."""

    __slots__ = (
        "candidates", "picked", "picked_rows", "profile", "refused", "rows", "steps", "totals", "votes",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - fields of a record
        self,
        profile: str,
        candidates: tuple[Endpoint, ...] = (),
        steps: list[Step] | None = None,
        votes: Votes = (),
        totals: Scores = NOTHING,
        picked: tuple[Endpoint, ...] = (),
        picked_rows: tuple[int, ...] = (),
        refused: Refused | None = None,
        rows: Rows | None = None,
    ) -> None:
        self.profile = profile
        self.candidates = candidates
        """After the filters, n of them, in the order of every vote."""
        self.steps = [] if steps is None else steps
        self.votes: Votes = votes
        self.totals = totals
        """Weighted sums, shape (n,)."""
        self.picked = picked
        """Best first; empty if the run refused."""
        self.picked_rows = picked_rows
        """Their rows in the table the request was decided on."""
        self.refused = refused
        self.rows = rows
        """The candidates' rows in that table; None = all of them, or not known."""

    @property
    def margin(self) -> float:
        """Lead of the highest total over the next one; 0 with fewer than two candidates."""
        if len(self.totals) < 2:
            return 0.0
        second, first = np.partition(self.totals, -2)[-2:]
        return float(first - second)

    def __reduce__(self) -> tuple[type[Run], tuple[object, ...]]:
        """How it is copied."""
        return Run, (
            self.profile, self.candidates, self.steps, self.votes, self.totals, self.picked,
            self.picked_rows, self.refused, self.rows,
        )  # fmt: skip

    def __repr__(self) -> str:
        left, picked = [one.key for one in self.candidates], [one.key for one in self.picked]
        return f"Run({self.profile!r}, candidates={left}, totals={self.totals.tolist()}, picked={picked})"


@final
class Decision:
    """Why a request goes where it goes. `runs` holds every profile that ran; `primary` names the one that counts.

    Once the answer is sent, only the picks are left of it.
    """

    __slots__ = (
        "decided_at", "flaws", "model", "notes", "primary", "request_id", "runs", "signals", "spent", "steps",
        "table_size", "took_s",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - fields of a record
        self,
        request_id: str,
        model: str,
        decided_at: float,
        table_size: int,
        primary: str = "",
        runs: dict[str, Run] | None = None,
        steps: list[Step] | None = None,
        signals: dict[str, Any] | None = None,  # each signal has its own type
        flaws: list[Flaw] | None = None,
        spent: list[Spent] | None = None,
        took_s: float = 0.0,
        notes: list[str] | None = None,
    ) -> None:
        self.request_id = request_id
        self.model = model
        self.decided_at = decided_at
        self.table_size = table_size
        """Endpoints there were, candidates or not."""
        self.primary = primary
        self.runs = {} if runs is None else runs
        self.steps = [] if steps is None else steps
        """What left endpoints out before any profile ran: subset hint, cooling, screeners."""
        self.signals = {} if signals is None else signals
        """What each signal said, by name; columns over the whole table. Dropped when the answer is sent."""
        self.flaws = [] if flaws is None else flaws
        self.spent = [] if spent is None else spent
        self.took_s = took_s
        """Wall time of the decision, waiting for slow signals included."""
        self.notes = [] if notes is None else notes
        """Remarks a reader of the decision needs: a fallback taken, a probe sent."""

    @property
    def run(self) -> Run:
        """The primary run."""
        return self.runs[self.primary]

    @property
    def picked(self) -> tuple[Endpoint, ...]:
        run = self.runs.get(self.primary)
        return () if run is None else run.picked

    def forget(self) -> None:
        """Keep who was picked and drop the rest: thousands of open responses hold their decisions."""
        self.signals, self.steps, self.spent, self.flaws = {}, [], [], []
        for run in self.runs.values():
            run.candidates, run.rows, run.votes, run.totals, run.steps = (), None, (), NOTHING, []

    def __reduce__(self) -> tuple[type[Decision], tuple[object, ...]]:
        """How it is copied."""
        return Decision, (
            self.request_id, self.model, self.decided_at, self.table_size, self.primary, self.runs,
            self.steps, self.signals, self.flaws, self.spent, self.took_s, self.notes,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Decision({self.request_id!r}, {self.model!r}, primary={self.primary!r}, runs={self.runs})"
