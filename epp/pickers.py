"""The built-in pickers: from totals to rows, best first."""

from __future__ import annotations

import numpy as np

from epp.types import Rows, Scores

TINY = 1e-10


def max_score_picker(scores: Scores, rng: np.random.Generator, *, max_num_of_endpoints: int = 1) -> Rows:
    """Pick the highest totals; ties are broken at random."""
    wanted = max(1, max_num_of_endpoints)
    if wanted == 1:
        best = (scores == scores[scores.argmax()]).nonzero()[0] if len(scores) else np.zeros(0, np.intp)
        return best if len(best) < 2 else best[int(rng.random() * len(best)) :][:1]
    shuffled = rng.permutation(len(scores))
    order = np.argsort(-scores[shuffled], kind="stable")
    return shuffled[order][:wanted]


def random_picker(scores: Scores, rng: np.random.Generator, *, max_num_of_endpoints: int = 1) -> Rows:
    """Pick uniformly at random, whatever the totals."""
    return rng.permutation(len(scores))[: max(1, max_num_of_endpoints)]


def weighted_random_picker(scores: Scores, rng: np.random.Generator, *, max_num_of_endpoints: int = 1) -> Rows:
    """Pick at random with probability proportional to the total.

    Sampling without replacement by keys u^(1/score) (Efraimidis and Spirakis, 2006); a total of 0 comes last, and
    if no total is above 0 the pick is uniform.
    """
    if not len(scores) or scores.max() <= 0.0:
        return random_picker(scores, rng, max_num_of_endpoints=max_num_of_endpoints)
    draws = np.maximum(rng.random(len(scores)), TINY)
    # The order of u^(1/s) is the order of log(u)/s, which does not underflow for small s.
    with np.errstate(divide="ignore"):
        keys = np.where(scores > 0.0, np.log(draws) / np.maximum(scores, 0.0), -np.inf)
    return np.argsort(-keys, kind="stable")[: max(1, max_num_of_endpoints)]
