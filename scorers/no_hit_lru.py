"""Spreads requests whose prompt nobody has cached, so that new prefixes fill the endpoints evenly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epp import Column, Decision, Endpoint, Endpoints, Request, Run, Scores

LRU_SIZE = 1024
WARM = 0.5


class NoHitLruScorer:
    """Prefer, for prompts cached nowhere, the endpoints that got such a prompt longest ago or never; else 0.5 for all.

    Endpoints never used come first, in the order of the candidates; then the used ones, least recently used first.
    """

    def __init__(
        self,
        *,
        lru_size: int = LRU_SIZE,
        prefix_match_info_producer_name: str = "",
        prefix_plugin_type: str = "",
        prefix_plugin_name: str = "",
    ) -> None:
        self._size = lru_size if lru_size > 0 else LRU_SIZE
        self._rows: dict[str, int] = {}
        self._used: Column = np.zeros(0)
        """For each of `_rows`: the how-manieth use its last one was; 0 = never used."""
        self._uses = 0.0
        self._cold: Request | None = None
        """The last request scored, if nobody had its prompt. Nothing comes between its scores and its pick."""
        ignored = "prefixPluginType and prefixPluginName are ignored; use prefixMatchInfoProducerName"
        self.warnings = (ignored,) if prefix_plugin_type or prefix_plugin_name else ()

    def __call__(self, request: Request, endpoints: Endpoints, cached_blocks: Column) -> Scores:
        cold = not cached_blocks.any()
        self._cold = request if cold else None
        if not cold:
            return np.full(len(endpoints), WARM)
        return self._order(endpoints.derive((self, "used"), self._follow))

    def picked(self, request: Request, decision: Decision) -> None:
        if self._cold is not request:
            return
        self._cold = None
        self._touch(decision.run)
        prefill = decision.runs.get("prefill")
        if prefill is not None and prefill is not decision.run:
            self._touch(prefill)

    def adopt(self, before: object) -> None:
        """Go on with who was used when; of more than fit, the latest."""
        if isinstance(before, NoHitLruScorer):
            self._rows, self._used, self._uses = dict(before._rows), before._used.copy(), before._uses
            over = np.count_nonzero(self._used) - self._size
            if over > 0:
                oldest_first = np.argsort(np.where(self._used > 0.0, self._used, np.inf))
                self._used[oldest_first[:over]] = 0.0

    def state(self) -> dict[str, object]:
        return {"endpoints": len(self._rows), "used": int(np.count_nonzero(self._used)), "size": self._size}

    def _order(self, used: Column) -> Scores:
        """1 for the first to be used, down by 1/(n - 1) a place; never below 0."""
        never = used == 0.0
        everyone = np.sort(self._used[self._used > 0.0])
        # Places among the used ones count over the whole memory, not over the candidates.
        place = np.where(never, np.cumsum(never) - 1.0, never.sum() + np.searchsorted(everyone, used))
        scores: Scores = np.maximum(1.0 - place / max(1, len(used) - 1), 0.0)
        return scores if len(used) != 1 else np.ones(1)

    def _follow(self, records: Sequence[Endpoint]) -> Column:
        """The memory in the order of a changed table; endpoints that are gone are forgotten."""
        before = {key: self._used[row] for key, row in self._rows.items()}
        self._rows = {record.key: row for row, record in enumerate(records)}
        self._used = np.array([before.get(key, 0.0) for key in self._rows], dtype=np.float64)
        return self._used

    def _touch(self, run: Run) -> None:
        row = self._rows.get(run.picked[0].key) if run.picked else None
        if row is None:
            return
        self._uses += 1.0
        self._used[row] = self._uses
        if np.count_nonzero(self._used) > self._size:
            oldest = np.where(self._used > 0.0, self._used, np.inf).argmin()
            self._used[oldest] = 0.0
