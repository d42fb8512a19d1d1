"""A decision as a table for a terminal: who could be picked, who voted how, who was left out by what."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epp.types import Decision, Run, Step, Vote

WIDTH = 100
MOST_ROWS = 20
MOST_LEFT_OUT = 5
"""Names told for each filter."""
PICKED, CANDIDATE, LEFT_OUT = "▶ ", "  ", "✗ "


def explain(decision: Decision, *, width: int = WIDTH, most_rows: int = MOST_ROWS) -> str:
    """The decision on at most `width` columns if its names allow; the best `most_rows` candidates of each run."""
    there = f"{decision.table_size} endpoint{'' if decision.table_size == 1 else 's'}"
    lines = [f"request {decision.request_id or '-'}   model {decision.model or '-'}   {there}"]
    lines += _left_out(decision.steps)
    for run in decision.runs.values():
        lines += ["", f"profile {run.profile}{'' if run.profile == decision.primary else ' (not the one that counts)'}"]
        lines += _candidates(run, width, most_rows) + _left_out(run.steps) + _result(run)
        lines += _priced(run, decision.signals, most_rows) if run.profile == decision.primary else []
    remarks = [f"note: {note}" for note in decision.notes]
    remarks += [f"flaw: {flaw.by}: {flaw.rule}{f' ({flaw.detail})' if flaw.detail else ''}" for flaw in decision.flaws]
    lines += ["", *remarks] if remarks else []
    if decision.spent:
        times = ", ".join(f"{spent.by} {spent.seconds * 1e6:.0f}" for spent in decision.spent)
        took = f"took {decision.took_s * 1e6:.0f} µs: {times}"
        lines += ["", *textwrap.wrap(took, width, subsequent_indent="  ", break_on_hyphens=False)]
    return "\n".join(lines) + "\n"


def _result(run: Run) -> list[str]:
    if run.refused is not None:
        by = f" (by {run.refused.by})" if run.refused.by else ""
        return [f"refused: {run.refused.status} {run.refused.message}{by}"]
    if not run.picked:
        return []
    picked = ", ".join(f"{endpoint.key} at {endpoint.host_port}" for endpoint in run.picked)
    best = len(run.totals) > 1 and run.candidates[int(run.totals.argmax())] == run.picked[0]
    return [f"picked {picked}{f', {run.margin:.3f} ahead of the next' if best else ''}"]


def _priced(run: Run, signals: Mapping[str, Any], most_rows: int) -> list[str]:
    """A sentence an endpoint: what the signals whose names end in `_ms` said of it, as `Decisions` keeps them."""
    columns = {name: values for name, values in signals.items() if name.endswith("_ms")}
    if not columns or len(run.totals) != len(run.candidates):
        return []
    order = sorted(range(len(run.totals)), key=lambda row: -run.totals[row])[:most_rows]
    told = {name: name.removesuffix("_ms").replace("_", " ") for name in columns}
    return [
        f"{run.candidates[row].key}: "
        + ", ".join(f"{told[name]} {float(values[row]):.0f} ms" for name, values in columns.items())
        for row in order
    ]


def _left_out(steps: Sequence[Step]) -> list[str]:
    lines = []
    for step in steps:
        names = list(step.removed[:MOST_LEFT_OUT])
        if len(step.removed) > len(names):
            names.append(f"{len(step.removed) - len(names)} more")
        lines += [f"{LEFT_OUT}{name}  left out by {step.by}" for name in names]
    return lines


@dataclass(frozen=True, slots=True)
class _Column:
    """`head` may have several lines; `cells` are one a row."""

    head: list[str]
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, self.head + self.cells))


def _candidates(run: Run, width: int, most_rows: int) -> list[str]:
    """The table: each raw vote and what it counts with its weight; only raw votes where both do not fit."""
    if not run.candidates or len(run.totals) != len(run.candidates):
        return []
    order = sorted(range(len(run.totals)), key=lambda row: -run.totals[row])
    rows = order[:most_rows]
    picked = {endpoint.key for endpoint in run.picked}
    keys = [run.candidates[row].key for row in rows]
    names = _Column([f"{CANDIDATE}endpoint"], [(PICKED if key in picked else CANDIDATE) + key for key in keys])
    total = _Column(["total"], [f"{run.totals[row]:.3f}" for row in rows])
    lines = _grid([names, *[_votes(vote, rows, weighted=True) for vote in run.votes], total])
    if max(map(len, lines)) > width:
        lines = _grid([names, *[_votes(vote, rows, weighted=False) for vote in run.votes], total])
    if len(order) > most_rows:
        lines.append(f"{CANDIDATE}… and {len(order) - most_rows} more, none above {run.totals[order[most_rows]]:.3f}")
    return lines


def _votes(vote: Vote, rows: Sequence[int], *, weighted: bool) -> _Column:
    scores = [float(vote.scores[row]) for row in rows]
    cells = [f"{score:.2f} → {vote.weight * score:.2f}" if weighted else f"{score:.2f}" for score in scores]
    return _Column([*textwrap.wrap(vote.by.removesuffix("-scorer"), 12), f"×{vote.weight:g}"], cells)


def _grid(columns: Sequence[_Column]) -> list[str]:
    """The columns side by side, the first flush left, the others flush right; heads end on one line."""
    height = max(len(column.head) for column in columns)
    padded: list[list[str]] = []
    for column in columns:
        lines = [""] * (height - len(column.head)) + column.head + column.cells
        padded.append([line.rjust(column.width) if padded else line.ljust(column.width) for line in lines])
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]
