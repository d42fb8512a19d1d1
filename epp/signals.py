"""How a signal declares what it provides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])  # any plug-in: a function or a class

TIMEOUT_MS = 400.0


@dataclass(frozen=True, slots=True)
class ColumnOf:
    """Marks a provided name as a column over all rows; readers get it sliced to their candidates."""

    default: float


def column(default: float = 0.0) -> ColumnOf:
    """A provided name that is a column of shape (n,); `default` fills it when the signal is late or failed."""
    return ColumnOf(default)


@dataclass(frozen=True, slots=True)
class Provides:
    """What a signal provides: name → default (a plain value, or a ColumnOf)."""

    values: Mapping[str, object]
    chosen_by: str
    by_default: bool
    timeout_ms: float


def signal(
    provides: Mapping[str, object],
    *,
    chosen_by: str = "",
    by_default: bool = False,
    timeout_ms: float = TIMEOUT_MS,
) -> Callable[[T], T]:
    """Declare a function or class as a signal.

    `provides` maps each name that other plug-ins may read to what they get when this signal is late or failed; wrap
    the default in `column()` where the value is one number per endpoint. With one name the signal returns the value;
    with several, a tuple of values in the order declared. `chosen_by` is the setting with which a reader names its
    provider; `by_default` lets the picker add this signal when nobody provides what a plug-in reads. `timeout_ms`
    bounds an async signal.
    """

    def declare(plugin: T) -> T:
        # A function and a class both take attributes; a type checker knows neither of them here.
        plugin.provides = Provides(dict(provides), chosen_by, by_default, timeout_ms)  # type: ignore[attr-defined]
        return plugin

    return declare
