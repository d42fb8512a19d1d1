"""Envoy's messages, taken apart by hand where they have the shape Envoy gives them, and by protobuf where not.

A message costs protobuf's Python classes 5 to 20 µs, most of it for reaching into fields one by one. What Envoy sends
is always the same few fields in the order of their numbers, so that a walk over the bytes finds them in 1 to 5 µs.
Whatever looks unusual (another field, another order, a name of 128 bytes) is left to protobuf, and so are errors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from sys import intern
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderMap
from envoy.config.core.v3.base_pb2 import Metadata as MetadataMessage
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from msgspec import Struct as Record

from epp.headers import Headers, Metadata

REQUEST_HEADERS, RESPONSE_HEADERS, REQUEST_BODY, RESPONSE_BODY = 0x12, 0x1A, 0x22, 0x2A
"""First byte of a message: field number and wire type (length-delimited) of the one kind it is."""
KINDS = {
    REQUEST_HEADERS: "request_headers",
    RESPONSE_HEADERS: "response_headers",
    REQUEST_BODY: "request_body",
    RESPONSE_BODY: "response_body",
}
METADATA, MODES = 0x42, 0x5A
FIRST, RAW_VALUE = 0x0A, 0x1A
EMPTY_METADATA = b"\x42\x00"
_MODES: dict[bytes, tuple[int, int] | None] = {
    EMPTY_METADATA + b"\x5a%c" % len(modes) + modes: (request, response)
    for request in range(5)
    for response in range(5)
    for modes in [(b"\x08%c" % request if request else b"") + (b"\x10%c" % response if response else b"")]
}
_MODES[EMPTY_METADATA] = None
"""What stands after headers or a body where no metadata is forwarded → body modes of request and response."""
RECURRING = frozenset({
    ":authority", ":method", ":path", ":scheme", ":status", "accept", "accept-encoding", "content-type", "server", "te",
    "transfer-encoding", "user-agent", "x-envoy-upstream-service-time", "x-forwarded-proto",
})  # fmt: skip
"""Headers with few values, which are worth remembering whole; no secrets among them."""
MOST_REMEMBERED = 4096
LONGEST_REMEMBERED = 96


class Message(Record, gc=False):
    """One message of Envoy's; `kind` is the field's name, None if there is none."""

    kind: str | None
    headers: Headers = {}
    body: bytes = b""
    end: bool = False
    metadata: Metadata = {}
    """Of filters, by namespace."""
    modes: tuple[int, int] | None = None
    """Body modes of request and response, on the first message of a stream."""
    observing: bool = False


def read(wire: bytes) -> Message:
    """Raises protobuf's DecodeError."""
    try:
        return _walked(wire) or _parsed(wire)
    except (IndexError, UnicodeDecodeError):
        return _parsed(wire)


def span(wire: bytes, at: int) -> tuple[int, int]:
    """Where a length-delimited value begins and ends, `at` being where its length stands. IndexError if cut short."""
    size = wire[at]
    at += 1
    if size >= 0x80:
        size &= 0x7F
        shift = 7
        while (more := wire[at]) >= 0x80:
            size |= (more & 0x7F) << shift
            shift += 7
            at += 1
        size |= more << shift
        at += 1
    return at, at + size


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
        found = _walked_body(wire, start, stop)
    except IndexError:
        return None
    return None if found is None else (wire[start:stop], wire[found[0] : found[1]], found[2])


def _walked(wire: bytes) -> Message | None:
    kind = wire[0]
    start, stop = span(wire, 1)
    if kind in {REQUEST_BODY, RESPONSE_BODY}:
        found = _walked_body(wire, start, stop)
        message = None if found is None else Message(KINDS[kind], {}, wire[found[0] : found[1]], found[2])
    elif kind in {REQUEST_HEADERS, RESPONSE_HEADERS}:
        message = _walked_headers(wire, start, stop)
    else:
        return None
    if message is None or stop == len(wire):
        return message
    rest = wire[stop:]
    if rest in _MODES:
        message.modes = _MODES[rest]
        return message
    start, end = span(rest, 1)
    if rest[0] != METADATA or (end < len(rest) and EMPTY_METADATA + rest[end:] not in _MODES):
        return None
    message.metadata = Late(rest[start:end])
    message.modes = _MODES.get(EMPTY_METADATA + rest[end:])
    return message if end <= len(rest) else None


def _walked_body(wire: bytes, start: int, stop: int) -> tuple[int, int, bool] | None:
    """Beginning and end of the bytes, and whether they are the last."""
    first, after = start, start
    if start < stop and wire[start] == FIRST:
        first, after = span(wire, start + 1)
    if after == stop:
        return first, after, False
    return (first, after, True) if wire[after:stop] == b"\x10\x01" else None


def _walked_headers(wire: bytes, start: int, stop: int) -> Message | None:
    if start == stop or wire[start] != FIRST:
        return None
    at, after = span(wire, start + 1)
    end_of_stream = after != stop
    if end_of_stream and wire[after:stop] != b"\x18\x01":
        return None
    headers: dict[str, tuple[str, ...]] = {}
    while at < after:
        # Right for entries below 128 bytes; a longer one is not among those remembered.
        end = at + 2 + wire[at + 1]
        pair = _remembered.get(wire[at:end])
        if pair is None:
            start, end = (at + 2, end) if wire[at + 1] < 0x80 else span(wire, at + 1)
            pair = _pair(wire[at], wire[start:end])
            if pair is None:
                return None
            if pair[0] in RECURRING:
                _remember(wire[at:end], pair)
        name, value = pair
        headers[name] = (*headers[name], *value) if name in headers else value
        at = end
    return Message(KINDS[wire[0]], headers, b"", end_of_stream) if at == after else None


_remembered: dict[bytes, tuple[str, tuple[str, ...]]] = {}
_names: dict[bytes, str] = {}


def _pair(tag: int, entry: bytes) -> tuple[str, tuple[str, ...]] | None:
    """Name and value of one header as Envoy writes it: `key`, then `raw_value`."""
    split = 2 + entry[1]
    if tag != FIRST or entry[0] != FIRST or split >= 0x82:
        return None
    name = _names.get(entry[2:split]) or _name(entry[2:split])
    if split == len(entry):
        return name, ("",)
    start = split + 2
    if start + entry[split + 1] != len(entry) or entry[split + 1] >= 0x80:
        start, end = span(entry, split + 1)
        if end != len(entry):
            return None
    return (name, (entry[start:].decode("utf-8", "replace"),)) if entry[split] == RAW_VALUE else None


def _remember(entry: bytes, pair: tuple[str, tuple[str, ...]]) -> None:
    if len(entry) <= LONGEST_REMEMBERED:
        if len(_remembered) >= MOST_REMEMBERED:
            _remembered.clear()
        _remembered[entry] = pair


def _name(sent: bytes) -> str:
    # The few names there are recur in every open stream.
    name = intern(sent.decode().lower())
    if len(_names) >= MOST_REMEMBERED:
        _names.clear()
    _names[sent] = name
    return name


class Late(Mapping[str, Any]):
    """Metadata that is decoded when somebody looks: on responses hardly anybody does.

    What is no Metadata message is as if nothing had been forwarded.
    """

    __slots__ = ("_found", "_wire")

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._found: Metadata | None = None

    def _members(self) -> Metadata:
        if self._found is None:
            try:
                self._found = _metadata(MetadataMessage.FromString(self._wire))
            except DecodeError:
                self._found = {}
        return self._found

    def __getitem__(self, name: str) -> Any:
        return self._members()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())


def _parsed(wire: bytes) -> Message:
    message = ProcessingRequest.FromString(wire)
    kind = message.WhichOneof("request")
    found = Message(kind, metadata=_metadata(message.metadata_context), observing=message.observability_mode)
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


def _headers(headers: HeaderMap) -> dict[str, tuple[str, ...]]:
    """Header name (lower-case) → all its values. Envoy fills `raw_value`; hand-made messages may fill `value`."""
    found: dict[str, tuple[str, ...]] = {}
    for header in headers.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        key = intern(header.key.lower())
        found[key] = (*found[key], value) if key in found else (value,)
    return found


def _metadata(message: MetadataMessage) -> dict[str, dict[str, Any]]:
    forwarded = message.filter_metadata
    return {name: _members(forwarded[name]) for name in forwarded} if forwarded else {}


def _members(struct: Struct) -> dict[str, Any]:  # JSON-like values
    return {name: _member(value) for name, value in struct.fields.items()}


def _member(value: Value) -> Any:
    # protobuf's own conversion to JSON raises on a NaN, which another filter may well have computed.
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _members(value.struct_value)
    if kind == "list_value":
        return [_member(one) for one in value.list_value.values]
    return None if kind is None or kind == "null_value" else getattr(value, kind)
