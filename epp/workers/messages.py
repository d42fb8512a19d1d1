"""What edges and the decider say to each other: arrays of msgpack, a turn of the loop's messages in one frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from epp.bodies.parsed import Parsed
from epp.rules import Forward
from epp.types import Outcome, Refused

Names = dict[str, tuple[str, ...]]
Answer = tuple[int, str, str, str, float | None]
"""A Refused: status, message, reason, by, when to try again."""
Sent = tuple[str, dict[str, str], dict[str, Any], bool, str, dict[str, str]]
"""A Forward, whose body an edge has: destination, headers, metadata, without body, model, headers of the response."""


# ---- from an edge


class Asking(Struct, tag=1, array_like=True):
    """A request is complete: Books.pick."""

    number: int
    received_at: float
    headers: Names
    metadata: dict[str, Any]  # JSON
    path: str
    parsed: Parsed
    """Without its prompts where nobody reads them."""
    body_bytes: int
    bodiless: bool
    refusal: Answer | None


class Refusing(Struct, tag=2, array_like=True):
    """The edge refused the request: Books.refuse."""

    number: int
    received_at: float
    refusal: Answer


class Headed(Struct, tag=3, array_like=True):
    """Books.head; `asks` for headers."""

    number: int
    failure: str
    headers: Names
    metadata: dict[str, Any]  # JSON
    asks: bool


class Begun(Struct, tag=4, array_like=True):
    """Books.first_piece."""

    number: int


class Gaps(Struct, tag=5, array_like=True):
    """Seconds between pieces, as doubles."""

    number: int
    seconds: bytes


class Settled(Struct, tag=6, array_like=True):
    """Books.settle; `asks` for metadata."""

    number: int
    outcome: Outcome
    asks: bool


class Tally(Struct, tag=7, array_like=True):
    """What an edge counted since it told last, and how it stands."""

    opened: int
    closed: list[tuple[float, str]]
    """Seconds and code of each stream that ended."""
    wrapped: int
    read: int
    lags: list[float]
    undecided: int
    """Requests that got 503 for want of a decider."""
    connections: int
    cpu_s: float
    """Of its whole life."""
    resident_bytes: int
    streams: int
    """Open on it."""
    over: bool = False
    """It stops, and nothing comes after this."""


# ---- from the decider


class Forwarded(Struct, tag=11, array_like=True):
    """The answer to Asking, and what must be asked for during the response."""

    number: int
    forward: Sent
    head_hooks: bool
    end_hooks: bool


class Turned(Struct, tag=12, array_like=True):
    """The answer to Asking or Headed: Refused."""

    number: int
    refusal: Answer


class Failing(Struct, tag=13, array_like=True):
    """The answer to Asking or Headed: a fault of the picker."""

    number: int
    error: str


class Told(Struct, tag=14, array_like=True):
    """The answer to Headed that asked: headers."""

    number: int
    headers: dict[str, str]


class Closed(Struct, tag=15, array_like=True):
    """The answer to Settled that asked: metadata."""

    number: int
    metadata: dict[str, Any]  # JSON


class Evicting(Struct, tag=16, array_like=True):
    """The request must end for a more important one."""

    number: int


class Reading(Struct, tag=17, array_like=True):
    """How requests are read from now on."""

    parsers: bytes
    """Pickled: type and settings of each."""
    files: list[tuple[str, bytes]]
    """The plug-in files, if a parser comes from one."""
    prompts: bool
    """Whether somebody reads them."""


class Standing(Struct, tag=18, array_like=True):
    """What probes are told."""

    ready: bool
    reachable: bool
    elected: bool


class Stop(Struct, tag=19, array_like=True):
    """Take no new streams, give open ones so long, and end."""

    grace_s: float


FromEdge = Asking | Refusing | Headed | Begun | Gaps | Settled | Tally
FromDecider = Forwarded | Turned | Failing | Told | Closed | Evicting | Reading | Standing | Stop
Message = FromEdge | FromDecider


def _plain(value: object) -> object:
    """What is a mapping in its own way (metadata is read when somebody looks), or what a plug-in made."""
    return dict(value) if isinstance(value, Mapping) else str(value)


encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode


def array_head(count: int) -> bytes:
    """What stands before an array of so many messages, each encoded alone."""
    return bytes((0x90 | count,)) if count < 16 else b"\xdd" + count.to_bytes(4, "big")


def apart(frame: bytes) -> list[bytes]:
    """The messages of an array, each as it was encoded."""
    return [bytes(wire) for wire in _RAW.decode(frame)]


_RAW = msgspec.msgpack.Decoder(list[msgspec.Raw])
from_edge = msgspec.msgpack.Decoder(list[FromEdge]).decode
from_decider = msgspec.msgpack.Decoder(list[FromDecider]).decode


def answer(refusal: Refused) -> Answer:
    return refusal.status, refusal.message, refusal.reason, refusal.by, refusal.retry_after_s


def refused(told: Answer) -> Refused:
    status, message, reason, by, retry_after_s = told
    return Refused(status, message, reason, by, retry_after_s)


def sent(forward: Forward) -> Sent:
    return (
        forward.destination,
        forward.set_headers,
        dict(forward.metadata),
        forward.bodiless,
        forward.model,
        forward.response_headers,
    )


def forward(told: Sent) -> Forward:
    destination, set_headers, metadata, bodiless, model, response_headers = told
    return Forward(
        destination,
        set_headers,
        metadata=metadata,
        bodiless=bodiless,
        model=model,
        response_headers=response_headers,
    )
