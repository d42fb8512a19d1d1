"""LoRA adapters: send a request where its adapter is loaded, or where one more fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epp import Endpoints, Request, Rows, Scores

Sets = Sequence[tuple[frozenset[str], frozenset[str]]]
LOADED, FITS, COMING, FULL = 1.0, 0.8, 0.6, 0.0
NOWHERE: Rows = np.zeros(0, dtype=np.intp)


class LoraAffinityScorer:
    """Prefer endpoints that run the request's adapter (1), then those with room (0.8), then those loading it (0.6)."""

    def __init__(self) -> None:
        # Adapters change seldom, requests come often: the sets are turned into columns when they differ from last time.
        self._sets: Sets = []
        self._taken = np.zeros(0)
        self._running: dict[str, Rows] = {}
        self._waiting: dict[str, Rows] = {}

    def __call__(self, request: Request, endpoints: Endpoints) -> Scores:
        sets = endpoints.loras()
        if sets != self._sets:
            self._learn(sets)
        scores: Scores = np.where(self._taken < endpoints.max_loras, FITS, FULL)
        waiting = self._waiting.get(request.model, NOWHERE)
        scores[waiting] = np.maximum(scores[waiting], COMING)
        scores[self._running.get(request.model, NOWHERE)] = LOADED
        return scores

    def _learn(self, sets: Sets) -> None:
        self._sets = list(sets)
        self._taken = np.array([len(running) + len(waiting) for running, waiting in sets], dtype=np.float64)
        self._running = _rows_of([running for running, _ in sets])
        self._waiting = _rows_of([waiting for _, waiting in sets])


def _rows_of(names: Sequence[frozenset[str]]) -> dict[str, Rows]:
    """Adapter → the rows that have it."""
    rows: dict[str, list[int]] = {}
    for row, here in enumerate(names):
        for name in here:
            rows.setdefault(name, []).append(row)
    return {name: np.array(found, dtype=np.intp) for name, found in rows.items()}
