"""Envoy's messages, taken apart by hand where they have the shape Envoy gives them, and by protobuf where not.

A message costs protobuf's Python classes 5 to 20 µs, most of it for reaching into fields one by one. What Envoy sends
is always the same few fields in the order of their numbers, so that a walk over the bytes finds them in 1 to 5 µs.
Whatever looks unusual (another field, another order, a name of 128 bytes) is left to protobuf, and so are errors.
"""

from __future__ import annotations

from sys import intern
from typing import Final

from envoy.config.core.v3.base_pb2 import HeaderMap
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from epp.extproc.header_walk import FIRST, span, walked
from epp.extproc.metadata import Late, namespaces
from epp.headers import Metadata, Received

REQUEST_HEADERS: Final = 0x12
RESPONSE_HEADERS: Final = 0x1A
REQUEST_BODY: Final = 0x22
RESPONSE_BODY: Final = 0x2A
"""First byte of a message: field number and wire type (length-delimited) of the one kind it is."""
KINDS: Final[dict[int, str]] = {
    REQUEST_HEADERS: "request_headers",
    RESPONSE_HEADERS: "response_headers",
    REQUEST_BODY: "request_body",
    RESPONSE_BODY: "response_body",
}
METADATA: Final = 0x42
EMPTY_METADATA: Final = b"\x42\x00"
LONGEST_MODES: Final = 8
_MODES: Final[dict[bytes, tuple[int, int] | None]] = {
    EMPTY_METADATA + b"\x5a%c" % len(modes) + modes: (request, response)
    for request in range(5)
    for response in range(5)
    for modes in [(b"\x08%c" % request if request else b"") + (b"\x10%c" % response if response else b"")]
}
_MODES[EMPTY_METADATA] = None
"""What stands after headers or a body where no metadata is forwarded → body modes of request and response."""
NO_METADATA: Final[Metadata] = {}


class Message:
    """One message of Envoy's; `kind` is the field's name, "" if there is none."""

    __slots__ = ("body", "end", "headers", "kind", "metadata", "modes", "observing")

    def __init__(self, kind: str, headers: Received, body: bytes, end: bool) -> None:
        self.kind = kind
        self.headers = headers
        self.body = body
        self.end = end
        self.metadata: Metadata = NO_METADATA
        """Of filters, by namespace."""
        self.modes: tuple[int, int] | None = None
        """Body modes of request and response, on the first message of a stream."""
        self.observing = False


def read(wire: bytes) -> Message:
    """Raises protobuf's DecodeError."""
    try:
        return _walked(wire) or _parsed(wire)
    except (IndexError, UnicodeDecodeError):
        return _parsed(wire)


Piece = tuple[bytes, bytes, bool]
"""A piece of a response: the HttpBody as it came, the body in it, whether it is the last."""


def piece(wire: bytes) -> Piece | None:
    """A piece of a response and metadata nobody reads; None for everything else."""
    try:
        if wire[0] != RESPONSE_BODY:
            return None
        # `span` spelled out for lengths of one byte: most messages there are come by here.
        size = wire[1]
        start, stop = (2, 2 + size) if size < 0x80 else span(wire, 1)
        if stop != len(wire) and (wire[stop] != METADATA or span(wire, stop + 1)[1] != len(wire)):
            return None
        first, after, end = _walked_body(wire, start, stop)
    except IndexError:
        return None
    return None if first < 0 else (wire[start:stop], wire[first:after], end)


def _walked(wire: bytes) -> Message | None:
    kind = wire[0]
    start, stop = span(wire, 1)
    if kind in (REQUEST_BODY, RESPONSE_BODY):
        first, after, end = _walked_body(wire, start, stop)
        if first < 0:
            return None
        message = Message(KINDS[kind], {}, wire[first:after], end)
    elif kind in (REQUEST_HEADERS, RESPONSE_HEADERS):
        headers: Received = {}
        ended = _walked_headers(wire, start, stop, headers)
        if ended < 0:
            return None
        message = Message(KINDS[kind], headers, b"", ended > 0)
    else:
        return None
    return message if stop == len(wire) or _walked_rest(message, wire, stop) else None


def _walked_rest(message: Message, wire: bytes, at: int) -> bool:
    """What stands after the one field of a kind; False if it is unusual."""
    if len(wire) <= at + LONGEST_MODES:
        modes = wire[at:]
        if modes in _MODES:
            message.modes = _MODES[modes]
            return True
    start, end = span(wire, at + 1)
    if wire[at] != METADATA or end > len(wire):
        return False
    if end < len(wire):
        modes = EMPTY_METADATA + wire[end:]
        if modes not in _MODES:
            return False
        message.modes = _MODES[modes]
    message.metadata = Late(wire[start:end])
    return True


def _walked_body(wire: bytes, start: int, stop: int) -> tuple[int, int, bool]:
    """Beginning and end of the bytes, and whether they are the last; -1 if the message is unusual."""
    first, after = start, start
    if start < stop and wire[start] == FIRST:
        first, after = span(wire, start + 1)
    if after == stop:
        return first, after, False
    if after + 2 == stop and wire[after] == 0x10 and wire[after + 1] == 0x01:
        return first, after, True
    return -1, 0, False


def _walked_headers(wire: bytes, start: int, stop: int, headers: Received) -> int:
    """Fills `headers`. 1 if the stream ends with them, 0 if not, -1 if the message is unusual."""
    if start == stop or wire[start] != FIRST:
        return -1
    at, after = span(wire, start + 1)
    # Compiled, a slice that ends before it begins is an error.
    if after > stop or (after != stop and wire[after:stop] != b"\x18\x01"):
        return -1
    if not walked(wire, at, after, headers):
        return -1
    return 0 if after == stop else 1


def _parsed(wire: bytes) -> Message:
    message = ProcessingRequest.FromString(wire)
    kind = message.WhichOneof("request") or ""
    found = Message(kind, {}, b"", False)
    found.metadata, found.observing = namespaces(message.metadata_context), message.observability_mode
    if message.HasField("protocol_config"):
        config = message.protocol_config
        found.modes = (config.request_body_mode, config.response_body_mode)
    if kind in {"request_headers", "response_headers"}:
        head = getattr(message, kind)
        found.headers, found.end = _headers(head.headers), head.end_of_stream
    elif kind in {"request_body", "response_body"}:
        piece = getattr(message, kind)
        found.body, found.end = piece.body, piece.end_of_stream
    return found


def _headers(headers: HeaderMap) -> Received:
    """Header name (lower-case) → all its values. Envoy fills `raw_value`; hand-made messages may fill `value`."""
    found: dict[str, list[str]] = {}
    for header in headers.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        found.setdefault(intern(header.key.lower()), []).append(value)
    return {key: tuple(values) for key, values in found.items()}
