"""What the route is given, configuration and flags, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from epp.bodies.parsed import Parsed
from epp.bodies.registry import Parsers
from epp.headers import Headers, Metadata
from epp.hooks import Hooks
from epp.plan import Setup
from epp.types import Refused

NO_HEADERS: Final[dict[str, str]] = {}
NO_METADATA: Final[Metadata] = {}


class Asked:
    """A request that is complete, as read from Envoy's messages."""

    __slots__ = ("bodiless", "body_bytes", "headers", "metadata", "parsed", "path", "refusal")

    def __init__(
        self,
        headers: Headers,
        metadata: Metadata,
        path: str,
        parsed: Parsed,
        body_bytes: int = 0,
        *,
        bodiless: bool = False,
        refusal: Refused | None = None,
    ) -> None:
        self.headers = headers
        self.metadata = metadata
        self.path = path
        """Without query."""
        self.parsed = parsed
        """What the body says; `raw` without one, or where it can't be read."""
        self.body_bytes = body_bytes
        self.bodiless = bodiless
        self.refusal = refusal
        """The body can't be read, and this is the answer."""


class Forward:
    """Where a request goes and what is changed about it. Nothing about it is changed once it is made."""

    __slots__ = ("bodiless", "body", "destination", "metadata", "model", "response_headers", "set_headers")

    def __init__(
        self,
        destination: str,
        set_headers: dict[str, str] = NO_HEADERS,
        body: bytes | None = None,
        metadata: Metadata = NO_METADATA,
        *,
        bodiless: bool = False,
        model: str = "",
        response_headers: dict[str, str] = NO_HEADERS,
    ) -> None:
        self.destination = destination
        """`ip:port`, or several joined with commas where the picker returned several."""
        self.set_headers = set_headers
        self.body = body
        """What the engine gets instead of the body received; None = the same bytes."""
        self.metadata = metadata
        """Dynamic metadata besides the destination, by namespace."""
        self.bodiless = bodiless
        self.model = model
        """The name of the model that the body must carry instead of its own; "" = its own."""
        self.response_headers = response_headers
        """Set on the response."""

    def carrying(self, body: bytes) -> Forward:
        """The same with another body."""
        return Forward(
            self.destination,
            self.set_headers,
            body,
            self.metadata,
            bodiless=self.bodiless,
            model=self.model,
            response_headers=self.response_headers,
        )


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
