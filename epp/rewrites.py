"""What the operator asks for beside the configuration: priorities of objectives, other models in place of the asked.

Both come from Kubernetes objects or a file; the route reads them as one `Steering`, which is swapped as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Target:
    """A model that a rule may choose."""

    model: str
    weight: int | None = None
    """Share among the targets that have one; None beside such = never chosen."""


@dataclass(frozen=True, slots=True)
class RewriteRule:
    """For requests that ask for one of `models` (none = for all), one of the targets is chosen."""

    models: tuple[str, ...]
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class ModelRewrite:
    """One object with its rules in order."""

    name: str
    created: str
    """RFC 3339 in UTC, as Kubernetes writes it: older ones go before."""
    rules: tuple[RewriteRule, ...]
    place: int = 0
    """In its file: of equal age, earlier ones go before. From Kubernetes all have the same."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A rule as it is used: the object it comes from, its models and their cumulative shares, the last one 1."""

    by: str
    models: tuple[str, ...]
    shares: tuple[float, ...]

    def model(self, chance: float) -> str:
        """The model for a number in [0, 1)."""
        at = int(np.searchsorted(self.shares, chance, side="right"))
        return self.models[min(at, len(self.models) - 1)]


class Rewrites:
    """Every rule, by the model it is for. A rule for the model itself goes before one for all; then the older object
    (of equal age the first in the file, or by name); then the order in the object."""

    def __init__(self, objects: Iterable[ModelRewrite] = ()) -> None:
        self._for_all: Choice | None = None
        self._by_model: dict[str, Choice] = {}
        self.models: frozenset[str] = frozenset()
        """Every model that a rule names: known to the operator, so few."""
        named: set[str] = set()
        for found in sorted(objects, key=lambda one: (one.created, one.place, one.name)):
            for rule in found.rules:
                self._add(_choice(found.name, rule.targets), rule.models)
                named.update(rule.models, (target.model for target in rule.targets))
        self.models = frozenset(named)

    def _add(self, choice: Choice, models: tuple[str, ...]) -> None:
        if not models:
            self._for_all = self._for_all or choice
        for model in models:
            self._by_model.setdefault(model, choice)

    def find(self, model: str) -> Choice | None:
        """The one rule for requests that ask for `model`."""
        return self._by_model.get(model, self._for_all)


def _choice(by: str, targets: tuple[Target, ...]) -> Choice:
    weighted = [(target.model, target.weight) for target in targets if target.weight is not None]
    total = sum(weight for _, weight in weighted)
    # No weights, or none above 0: all alike.
    shares = [(model, weight / total) for model, weight in weighted] if total else [(t.model, 1.0) for t in targets]
    reached = np.cumsum([share for _, share in shares])
    return Choice(by, tuple(model for model, _ in shares), tuple((reached / reached[-1]).tolist()))


@dataclass(frozen=True, slots=True)
class Steering:
    """What is in force."""

    objectives: Mapping[str, int] = field(default_factory=dict)
    """Priority by objective name."""
    rewrites: Rewrites = field(default_factory=Rewrites)
