"""What a watch takes from outside: time, chance, patience, and who hears how it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a watch is, in seconds."""

    first_s: float = 0.8
    """Before the first new attempt; doubled each time, with chance, up to `most_s`."""
    most_s: float = 30.0
    absent_s: float = 15.0
    """At most so long between two questions for a kind that the server does not have: it may be installed any time."""
    silent_s: float = 75.0
    """A watch that tells nothing for so long is dead: bookmarks come about once a minute."""
    lasts_s: float = 300.0
    """The server is asked to end a watch after this, up to twice as long."""
    list_s: float = 30.0
    """For the answer to one page."""


class Hears(Protocol):
    """Hears how watching goes. `resource` is the plural of a kind and its group."""

    def watch_failed(self, resource: str, cause: str) -> None: ...

    def watch_stands(self, resource: str, *, synced: bool | None, objects: int, broken: int) -> None:
        """`synced` None: the server has no such kind, which is no trouble."""


@dataclass(frozen=True, slots=True)
class Around:
    """Time and chance, and who hears how watching goes."""

    hears: Hears
    clock: Callable[[], float]
    chance: Callable[[], float]
    pace: Pace = field(default_factory=Pace)
