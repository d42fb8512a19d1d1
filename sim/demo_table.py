"""A decision of /debug/decisions as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Tree = Mapping[str, Any]  # JSON of the picker's metrics port
PICKED, OTHER = "▶ ", "  "
LEAD = 0.01
"""Less is told as 0.00."""


def telling(decisions: Sequence[Tree]) -> Tree | None:
    """The one most worth looking at: where most scorers tell endpoints apart, and the lead is small but no tie."""
    ran = [decision for decision in decisions if decision["runs"] and decision["runs"][0]["candidates"]]
    return max(ran, key=_worth, default=None)


def _worth(decision: Tree) -> tuple[int, bool, float]:
    run = decision["runs"][0]
    return sum([_spread(run, by) > 0 for by in run["weights"]]), run["margin"] >= LEAD, -float(run["margin"])


def _spread(run: Tree, by: str) -> float:
    """The highest vote less the lowest."""
    votes = [candidate["votes"][by] for candidate in run["candidates"]]
    return float(max(votes) - min(votes))


def explained(decision: Tree) -> str:
    """Who voted how, and what came of it."""
    run, request = decision["runs"][0], decision["request"]
    scorers = list(run["weights"])
    heads = ["endpoint", *[by.removesuffix("-scorer") for by in scorers], "total"]
    weights = ["", *[f"vote × {run['weights'][by]:g}" for by in scorers], ""]
    body = [_row(candidate, run["picked"], scorers) for candidate in run["candidates"]]
    picked = ", ".join(run["picked"])
    return "\n".join(
        [
            f"request {request['id']}   {request['body_bytes']:,} bytes   decided in {decision['took_ms']:.2f} ms",
            "",
            *_grid([heads, weights, *body]),
            f"picked {picked}, {run['margin']:.3f} ahead of the next",
            *[_priced(candidate) for candidate in run["candidates"] if candidate.get("milliseconds")],
            "",
        ]
    )


def _priced(candidate: Tree) -> str:
    """What signals expected of it, where they tell milliseconds."""
    parts = [
        f"{name.removesuffix('_ms').replace('_', ' ')} {ms:.0f} ms" for name, ms in candidate["milliseconds"].items()
    ]
    return f"{candidate['endpoint']}: {', '.join(parts)}"


def _row(candidate: Tree, picked: Sequence[str], scorers: Sequence[str]) -> list[str]:
    name = str(candidate["endpoint"])
    votes = [f"{candidate['votes'][by]:.2f} → {candidate['weighted'][by]:.2f}" for by in scorers]
    return [(PICKED if name in picked else OTHER) + name, *votes, f"{candidate['total']:.3f}"]


def _grid(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side, the first flush left."""
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return [
        "  ".join([line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]]).rstrip()
        for line in lines
    ]
