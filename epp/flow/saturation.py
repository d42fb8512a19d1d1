"""How full the pool is, in one number: what the detector says of each endpoint, by stage of the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from epp.plugins import shown
from epp.scheduler import Bound
from epp.types import Column, Endpoint, Endpoints, Mask

ROLE = "llm-d.ai/role"
PREFILL = frozenset({"prefill", "encode-prefill"})
BOTH = frozenset({"prefill-decode", "both", "encode-prefill-decode"})
FULL = 1.0
"""Of a pool without endpoints."""
Failed = Callable[[str, BaseException], None]


class Saturation:
    """Asks the detector about all endpoints there are. One that fails is told of and counts as an empty pool's load,
    0: requests then go as they would without it."""

    def __init__(self, snapshot: Callable[[], Endpoints], detector: Bound | None, failed: Failed) -> None:
        self._snapshot = snapshot
        self._failed = failed
        self.detector = detector

    def __call__(self) -> float:
        """The fullest stage's mean, or the mean of all where no endpoint has a stage; 1 without endpoints."""
        return self.of(self._snapshot())

    def of(self, endpoints: Endpoints) -> float:
        """The same of some candidates."""
        if not len(endpoints):
            return FULL
        each = self._each(endpoints)
        found = [float(each[mask].mean()) for mask in _stages(endpoints).values() if mask.any()]
        return max(found) if found else float(each.mean())

    def stages(self) -> dict[str, float]:
        """By stage, as far as there are endpoints for it, and `effective`, which counts."""
        endpoints = self._snapshot()
        each = self._each(endpoints)
        found = {name: float(each[mask].mean()) for name, mask in _stages(endpoints).items() if mask.any()}
        whole = float(each.mean()) if len(endpoints) else FULL
        return {**found, "effective": max(found.values()) if found else whole}

    def _each(self, endpoints: Endpoints) -> Column:
        detector = self.detector
        if detector is None:
            return np.zeros(len(endpoints))
        try:
            each = detector.answer({"endpoints": endpoints, "now": endpoints.now})
            if _is_column(each, len(endpoints)):
                return each  # type: ignore[no-any-return]  # it is a column: that was just looked at
            error: BaseException = ValueError(f"wanted finite numbers, none below 0, of shape ({len(endpoints)},)")
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 - a stranger's code
            error = raised
        self._failed(detector.name, error if isinstance(error, Exception) else RuntimeError(shown(error)))
        return np.zeros(len(endpoints))


def _is_column(each: Any, n: int) -> bool:
    good = isinstance(each, np.ndarray) and each.shape == (n,) and each.dtype.kind in "fiub"
    return good and (not n or bool(each.min() >= 0.0 and each.max() < np.inf))


def _stages(endpoints: Endpoints) -> dict[str, Mask]:
    """Who works in which stage; computed once for each version of the table."""
    return {
        "prefill": endpoints.derive("flow prefill", _role(PREFILL | BOTH, missing=False)),
        "decode": endpoints.derive("flow decode", _role(frozenset({"decode"}) | BOTH, missing=True)),
    }


def _role(roles: frozenset[str], *, missing: bool) -> Callable[[Sequence[Endpoint]], Mask]:
    def compute(records: Sequence[Endpoint]) -> Mask:
        return np.array([one.labels[ROLE] in roles if ROLE in one.labels else missing for one in records], np.bool_)

    return compute
