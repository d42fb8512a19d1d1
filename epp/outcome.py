"""How requests end."""

from __future__ import annotations

from msgspec import Struct

UNSEEN = "unseen"
"""The cause of a request whose response nobody shows us: how it ended is not known."""


class Usage(Struct, frozen=True, array_like=True):
    """Token counts an engine reported. None = not told."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None


class Outcome(Struct, frozen=True, array_like=True):
    """How a request ended."""

    usage: Usage | None
    status: int
    """HTTP status the engine answered with; 0 if none was seen."""
    cause: str
    """natural, client-disconnect, error, evicted or unseen."""
    ttft_s: float | None
    """From the request's headers to the first byte of the response's body."""
    duration_s: float
    streamed: bool = False
    """The response was an event stream."""
    response_bytes: int = 0
    failure: str = ""
    """How the endpoint failed (5xx, connect, missing), "" if it did not."""
    pieces: int = 0
    """Data events of an event stream, about one a token; of what nobody reads, the non-empty pieces it came in."""
    work_s: float = 0.0
    """Spent on the response: on the messages of an event stream, of another one from its headers to its end."""
