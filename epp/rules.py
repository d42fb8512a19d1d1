"""What the route is given, configuration and flags, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from epp.bodies.parsed import Parsed
from epp.bodies.registry import Parsers
from epp.headers import Headers, Metadata
from epp.hooks import Hooks
from epp.plan import Setup
from epp.types import Refused


class Asked(Struct):
    """A request that is complete, as read from Envoy's messages."""

    headers: Headers
    metadata: Metadata
    path: str
    """Without query."""
    parsed: Parsed
    """What the body says; `raw` without one, or where it can't be read."""
    body_bytes: int = 0
    bodiless: bool = False
    refusal: Refused | None = None
    """The body can't be read, and this is the answer."""


class Forward(Struct, frozen=True, array_like=True):
    """Where a request goes and what is changed about it."""

    destination: str
    """`ip:port`, or several joined with commas where the picker returned several."""
    set_headers: Mapping[str, str] = {}
    body: bytes | None = None
    """What the engine gets instead of the body received; None = the same bytes."""
    metadata: Metadata = {}
    """Dynamic metadata besides the destination, by namespace."""
    bodiless: bool = False
    model: str = ""
    """The name of the model that the body must carry instead of its own; "" = its own."""
    response_headers: Mapping[str, str] = {}
    """Set on the response."""


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
    whole_response: bool = True
    """False: the stream is ended once the request is on its way."""
