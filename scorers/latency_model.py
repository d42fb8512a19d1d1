"""What a latency depends on, learned from our own observations: least squares with forgetting, kept sane.

One linear model over all endpoints (so that a new one is not cold) and one factor for each endpoint. Coefficients are
never negative: more load never predicts a shorter time. Pure numpy; no clock.
"""

from __future__ import annotations

from math import exp, log

import numpy as np
import numpy.typing as npt

from epp import Column

Weights = npt.NDArray[np.float64]
"""Shape (p,)."""
BLOCK = 64
"""Observations learned in one step, so that the algebra costs little for each; fewer in the beginning."""
MEMORY = 0.999
"""What one observation leaves of the weight of those before it: the last thousand count."""
FACTOR_MEMORY = 0.98
"""The same for one endpoint's factor: its last fifty count."""
FACTOR_PRIOR = 4.0
"""So many observations of an endpoint weigh as much as the supposition that it is like the others."""
FURTHEST = log(8.0)
"""An endpoint is at most eight times slower or faster than the others; one observation counts no further off."""
CAUTION = 10.0
"""So many observations' worth of doubt that anything but the constant matters."""
READY_AFTER = 24
"""Observations before anything is predicted."""
ERROR_MEMORY = 0.98
WRONG = log(3.0)
"""Wrong by more than 3 × in the mean: nothing is predicted until it is RIGHT."""
RIGHT = log(2.0)
SMALLEST_S = 1e-5
LARGEST_S = 600.0


class Latency:
    """One kind of time, in seconds, as coefficients of `features` (the first one is the constant 1)."""

    def __init__(self, features: int) -> None:
        self.weights: Weights = np.zeros(features)
        self.seen = 0
        """Observations learned from."""
        self.error = 0.0
        """Mean of |log(predicted ÷ observed)| over the last fifty or so."""
        self._wrong = False
        self._ratios: dict[str, tuple[float, float]] = {}
        """Endpoint → (weighted sum of log ratios, weighted count)."""
        self._slower: dict[str, float] = {}
        """Endpoint → logarithm of its factor."""
        self._shift = 0.0
        """What log ratios are in the mean: factors compare endpoints with each other."""
        self._gram = np.zeros((features, features))
        self._moment = np.zeros(features)
        self._rows = np.zeros((BLOCK, features))
        self._times = np.zeros(BLOCK)
        self._keys: list[str] = []

    @property
    def ready(self) -> bool:
        """Whether what it predicts is worth hearing."""
        return self.seen >= READY_AFTER and not self._wrong

    @property
    def state(self) -> str:
        """ready, cold or wrong."""
        if self.seen < READY_AFTER:
            return "cold"
        return "wrong" if self._wrong else "ready"

    def factor(self, key: str) -> float:
        """How much slower than the others an endpoint is."""
        return exp(self._slower.get(key, 0.0))

    def factors(self, keys: list[str]) -> Column:
        """The same for each of `keys`."""
        slower = self._slower
        found: Column = np.exp([slower.get(key, 0.0) for key in keys])
        return found

    def keep(self, keys: set[str]) -> None:
        """Forget the factors of all other endpoints."""
        for gone in self._ratios.keys() - keys:
            del self._ratios[gone], self._slower[gone]

    def observe(self, key: str, features: Weights, seconds: float, predicted_s: float) -> bool:
        """Note one observation; true if it made the model learn. `predicted_s` is what was said before, 0 = nothing."""
        seconds = min(max(seconds, SMALLEST_S), LARGEST_S)
        if predicted_s > 0.0:
            self._judge(abs(log(predicted_s / seconds)))
        at = len(self._keys)
        self._rows[at] = features
        self._times[at] = seconds
        self._keys.append(key)
        if at + 1 < min(BLOCK, max(8, self.seen // 4)):
            return False
        self._learn()
        return True

    def _judge(self, error: float) -> None:
        self.error += (1.0 - ERROR_MEMORY) * (min(error, 2 * FURTHEST) - self.error)
        self._wrong = self.error > (RIGHT if self._wrong else WRONG)

    def _learn(self) -> None:
        """Take up the block: fit the shared coefficients, then each endpoint's factor."""
        n, keys = len(self._keys), self._keys
        rows = self._rows[:n]
        factors = self.factors(keys)
        times = self._times[:n] / factors
        expected = rows @ self.weights if self.seen else times
        # Errors count in proportion to the time, or the longest ones alone would decide; those far off count less.
        scale = np.maximum(expected, 0.2 * np.sort(times)[n // 2])
        off = np.abs(times - expected) / scale
        weight = 1.0 / (scale * scale * np.maximum(off, 1.0))
        weighted = (rows * weight[:, None]).T
        faded = MEMORY**n
        self._gram = self._gram * faded + weighted @ rows
        self._moment = self._moment * faded + weighted @ times
        self.seen += n
        self.weights = nonnegative(self._gram, self._moment, CAUTION / self.seen)
        self._compare(keys, self._times[:n] / np.maximum(rows @ self.weights, SMALLEST_S), factors)
        self._keys = []

    def _compare(self, keys: list[str], ratios: Column, factors: Column) -> None:
        """`ratios` = observed ÷ what the coefficients alone say."""
        left = float(_within(np.log(ratios / factors)).sum()) / len(keys)
        self._shift += min(1.0, len(keys) * 0.01) * (left - self._shift)
        known, slower = self._ratios, self._slower
        for key, ratio in zip(keys, _within(np.log(ratios) - self._shift).tolist(), strict=True):
            total, count = known.get(key, (0.0, 0.0))
            total, count = total * FACTOR_MEMORY + ratio, count * FACTOR_MEMORY + 1.0
            known[key] = total, count
            slower[key] = total / (count + FACTOR_PRIOR)


def _within(ratios: Column) -> Column:
    found: Column = np.minimum(np.maximum(ratios, -FURTHEST), FURTHEST)
    return found


def nonnegative(gram: npt.NDArray[np.float64], moment: Weights, caution: float = 0.0) -> Weights:
    """Coefficients of least squares, none below 0: those that would be are left out, and the others fitted anew.

    `caution` draws all but the first one towards 0: few observations make steep slopes.
    """
    found = np.zeros(len(moment))
    weight = gram.diagonal()
    # Keeps the equations solvable where a feature never varied; small beside what any feature that did weighs.
    firm = gram.copy()
    firmer = weight * (1.0 + 1e-6 + caution) + 1e-12
    firmer[0] -= weight[0] * caution
    np.fill_diagonal(firm, firmer)
    left = np.flatnonzero(weight > 0.0)
    while len(left):
        whole = len(left) == len(moment)
        solved = np.linalg.solve(firm if whole else firm[left[:, None], left], moment[left])
        if solved.min() >= 0.0:
            found[left] = solved
            break
        left = left[solved >= 0.0]
    return found
