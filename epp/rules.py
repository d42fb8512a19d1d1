"""What the route is given, configuration and flags, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from epp.bodies.registry import Parsers
from epp.headers import Metadata
from epp.hooks import Hooks
from epp.profiles import Setup


class Forward(Struct, frozen=True):
    """Where a request goes and what is changed about it."""

    destination: str
    """`ip:port`, or several joined with commas where the picker returned several."""
    set_headers: Mapping[str, str] = {}
    body: bytes | None = None
    """What the engine gets instead of the body received; None = the same bytes."""
    metadata: Metadata = {}
    """Dynamic metadata besides the destination, by namespace."""
    bodiless: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What a configuration makes of requests; a reload swaps it as a whole."""

    setup: Setup
    parsers: Parsers
    hooks: Hooks
    columns: frozenset[str] = frozenset()
    """Keys of signals that are columns (setup.columns, computed once)."""


@dataclass(frozen=True, slots=True)
class Habits:
    """Flags that touch every request."""

    decision_timeout_s: float = 30.0
    """From the request's last byte to its answer."""
    load_report: bool = False
    emit_decision_id: bool = False
    emit_scores: bool = False
    subset_filter: bool = True
