"""What a decision is made by, a configuration that is built, and what each one is given besides."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import GeneratorType, NoneType
from typing import Any, Final, final

import numpy as np

from epp.plugins import Plugin
from epp.scheduler import NOBODY, Bound, Profile
from epp.signals import ColumnOf, Provides
from epp.types import Endpoints, Mask, Request, Run

PLAIN: Final = (tuple, np.ndarray, float, NoneType)
"""What signals mostly answer, none of it awaitable."""
MOST_PLAIN = 16


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A signal ready to be computed: `outputs` are the keys its values go to, in the order it returns them."""

    bound: Bound
    provides: Provides
    outputs: tuple[str, ...]
    slots: tuple[tuple[str, object, bool], ...] = field(init=False, repr=False)
    """Each key with its default and whether it is a column."""
    plain: set[type] = field(init=False, repr=False, default_factory=lambda: set(PLAIN))
    """What it has answered that was not to be awaited."""

    def __post_init__(self) -> None:
        defaults = [d.default if isinstance(d, ColumnOf) else d for d in self.provides.values.values()]
        columns = [isinstance(d, ColumnOf) for d in self.provides.values.values()]
        object.__setattr__(self, "slots", tuple(zip(self.outputs, defaults, columns, strict=True)))

    def awaits(self, answer: Any) -> bool:
        """Whether this answer of its must be awaited. To ask a class what it lacks takes half a microsecond."""
        kind = type(answer)
        if kind in self.plain:
            return False
        # `inspect.isawaitable` asks an abstract class, which takes a microsecond to say no.
        if (hasattr(kind, "__await__") or kind is GeneratorType) and inspect.isawaitable(answer):
            return True
        if kind is not GeneratorType and len(self.plain) < MOST_PLAIN:
            self.plain.add(kind)
        return False


@dataclass(frozen=True, slots=True)
class Slow:
    """A signal that must be awaited, at most `timeout_ms`."""

    name: str
    value: Awaitable[Any]
    timeout_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """A configuration, built: everything that decides. Immutable; a reload makes another one."""

    plugins: Mapping[str, Plugin]
    profiles: dict[str, Profile]
    handler: Bound
    primary: Callable[[Request, Mapping[str, Run]], str] | None
    """The handler's own word on which run counts; None = the first that picked."""
    signals: tuple[Measured, ...] = ()
    """In an order in which each one's inputs come before it."""
    screeners: tuple[Bound, ...] = ()
    admitters: tuple[Bound, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """Keys of signals that are columns over the table."""
        return frozenset(key for signal in self.signals for key, _, is_column in signal.slots if is_column)


@final
class Given:
    """What a decision is made from besides the configuration."""

    __slots__ = ("clock", "cooling", "endpoints", "now", "request", "rng", "subset", "suspended")

    def __init__(  # noqa: PLR0917 - fields of a record
        self,
        request: Request,
        endpoints: Endpoints,
        now: float,
        rng: np.random.Generator,
        clock: Callable[[], float],
        subset: Mask | None = None,
        cooling: Mask | None = None,
        suspended: frozenset[str] = NOBODY,
    ) -> None:
        self.request = request
        self.endpoints = endpoints
        self.now = now
        self.rng = rng
        self.clock = clock
        self.subset = subset
        """True where the gateway's hint allows the endpoint; None = no hint."""
        self.cooling = cooling
        """True where an endpoint is left out for failing; None = nowhere."""
        self.suspended = suspended
