"""Where an ext_proc stream is, and what it asks of who drives it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from epp.headers import Metadata, Received


class State(StrEnum):
    """Where the stream is."""

    START = "start"
    BODY = "body"
    """Collecting the request's body."""
    PICKING = "picking"
    """The request is complete; its answer is being decided."""
    FORWARDED = "forwarded"
    """The request is on its way; the response is awaited."""
    RESPONSE = "response"
    DONE = "done"
    """Refused, or left: nothing more is said."""
    WATCHING = "watching"
    """Observability mode: nothing is answered."""


# Compiled code reads these at once, an enum's attributes by a search.
START: Final = State.START
BODY: Final = State.BODY
PICKING: Final = State.PICKING
FORWARDED: Final = State.FORWARDED
RESPONSE: Final = State.RESPONSE
DONE: Final = State.DONE
WATCHING: Final = State.WATCHING


class Pick:
    """The request is complete: choose an endpoint. `body` is None where the mode does not show it or there is none."""

    __slots__ = ("bodiless", "body", "headers", "metadata")

    def __init__(self, headers: Received, metadata: Metadata, body: bytes | None, bodiless: bool) -> None:
        self.headers = headers
        self.metadata = metadata
        self.body = body
        self.bodiless = bodiless


class Head:
    """The response's headers are here."""

    __slots__ = ("end", "headers", "metadata")

    def __init__(self, headers: Received, metadata: Metadata, end: bool) -> None:
        self.headers = headers
        self.metadata = metadata
        self.end = end


class Piece:
    """A piece of the response's body."""

    __slots__ = ("body", "end")

    def __init__(self, body: bytes, end: bool) -> None:
        self.body = body
        self.end = end


class End:
    """The response ended with trailers."""

    __slots__ = ()


Event = Pick | Head | Piece | End | None
