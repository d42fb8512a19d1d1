"""Metrics of program-aware-fairness: who had how much, and waited how long."""

from __future__ import annotations

from heapq import nlargest
from typing import Protocol

from epp.obs.series import Families

MOST_PROGRAMS = 100
"""Told apart: those with the most tokens. Clients choose the names."""
TYPE = "program-aware-fairness"


class Statistics(Protocol):
    """What the plug-in tells."""

    @property
    def tokens(self) -> dict[str, float]: ...

    @property
    def wait_ms(self) -> dict[str, float]: ...

    @property
    def jains_index(self) -> float: ...


def tell(families: Families, found: Statistics | None) -> None:
    """Bring the gauges up to date; None = the plug-in is not configured, and then there are none."""
    index, waits, tokens = (
        families.cells(f"program_aware_{name}")
        for name in ("jains_fairness_index", "avg_wait_time_milliseconds", "attained_service_tokens")
    )
    for cells in (index, waits, tokens):
        cells.drop(lambda labels, value: True)
    if found is None:
        return
    index.set((), found.jains_index)
    for name in nlargest(MOST_PROGRAMS, found.tokens, key=lambda name: found.tokens[name]):
        tokens.set((name,), found.tokens[name])
        if name in found.wait_ms:
            waits.set((name,), found.wait_ms[name])
