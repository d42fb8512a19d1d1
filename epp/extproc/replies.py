"""Builds what Envoy is told: destination, body pieces, refusals. The only place that knows the messages' shapes.

Answers are bytes on the wire. The four kinds that every request needs are written by hand, field by field in the order
of their numbers as protobuf would (tests compare the two); protobuf's Python classes take 30 µs for them, this 5. What
is rare is left to protobuf.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    ProcessingResponse,
)
from google.protobuf.struct_pb2 import Struct

from epp.headers import CONTROL, DESTINATION, DROPPED_REASON, Metadata
from epp.rules import Forward
from epp.types import Refused

CHUNK_BYTES: Final = 62_000
"""Largest streamed piece: some Envoy-based gateways refuse messages over 64 KiB."""
BodyKind = Literal["request_body", "response_body"]
KIND: Final[dict[str, bytes]] = {
    "request_headers": b"\x0a",
    "response_headers": b"\x12",
    "request_body": b"\x1a",
    "response_body": b"\x22",
    "request_trailers": b"\x2a",
    "response_trailers": b"\x32",
}
"""First byte of a ProcessingResponse: which answer it is."""
FIRST: Final = b"\x0a"
SECOND: Final = b"\x12"
THIRD: Final = b"\x1a"
"""Length-delimited fields 1, 2, 3."""
MOST_REMEMBERED: Final = 4096

_SHORT: Final = [bytes((n,)) for n in range(0x80)]
_MORE: Final = [bytes((n | 0x80,)) for n in range(0x80)]
"""A byte of a length that goes on, by its seven bits."""


def _size(n: int) -> bytes:
    """A length as protobuf writes it."""
    if n < 0x80:
        return _SHORT[n]
    return _MORE[n & 0x7F] + (_SHORT[n >> 7] if n < 0x4000 else _size(n >> 7))


def _field(tag: bytes, value: bytes) -> bytes:
    return tag + _size(len(value)) + value


def routed_headers(forward: Forward, body_bytes: int) -> bytes:
    """The answer to the request's headers that sends it to its endpoint."""
    if forward.set_headers or forward.metadata or forward.bodiless or not body_bytes:
        return _routed(KIND["request_headers"], forward, body_bytes, b"")
    # Nearly every request: only the destination and the length of the body differ.
    digits = b"%d" % body_bytes
    around = _around[len(digits)].get(forward.destination)
    before, after = _remember_around(forward, digits) if around is None else around
    return before + digits + after


_around: Final[list[dict[str, tuple[bytes, bytes]]]] = [{} for _ in range(20)]
"""By the number of digits, destination → what stands before them and after them."""


def _remember_around(forward: Forward, digits: bytes) -> tuple[bytes, bytes]:
    length = _content_length(int(digits))
    before, _, after = _routed(KIND["request_headers"], forward, int(digits), b"").partition(length)
    made = before + length[: -len(digits)], after
    known = _around[len(digits)]
    if len(known) >= MOST_REMEMBERED:
        known.clear()
    known[forward.destination] = made
    return made


def routed_body(forward: Forward, body_bytes: int) -> bytes:
    """The answer to a buffered body that sends the request to its endpoint."""
    changed = b"" if forward.body is None else _field(THIRD, _field(FIRST, forward.body))
    return _routed(KIND["request_body"], forward, body_bytes, changed)


_REMOVED: Final = b"".join([_field(SECOND, name.encode()) for name in CONTROL])
_CLEAR_ROUTE_CACHE: Final = b"\x28\x01"
"""Lets routes that match on our headers take effect; it is honoured only with a mutation."""


def _routed(kind: bytes, forward: Forward, body_bytes: int, body_mutation: bytes) -> bytes:
    """A CommonResponse inside of its answer, and the destination once more, as metadata."""
    destination = forward.destination
    known = _destinations.get(destination)
    option, metadata = _remember(destination) if known is None else known
    length = _content_length(body_bytes) if body_bytes and not forward.bodiless else b""
    others = forward.set_headers
    ours = b"".join([_option(name, value) for name, value in others.items()]) if others else b""
    if forward.metadata:
        metadata = _with_destination(forward.metadata, destination)
    mutation = len(option) + len(length) + len(ours) + len(_REMOVED)
    mutation_size = _size(mutation)
    inner = 1 + len(mutation_size) + mutation + len(body_mutation) + len(_CLEAR_ROUTE_CACHE)
    inner_size = _size(inner)
    return b"".join([
        kind, _size(1 + len(inner_size) + inner), FIRST, inner_size, SECOND, mutation_size, option, length, ours,
        _REMOVED, body_mutation, _CLEAR_ROUTE_CACHE, metadata,
    ])  # fmt: skip


def _option(name: str, value: str) -> bytes:
    """An entry of `set_headers`."""
    return _field(FIRST, _header(name, value))


def _header(name: str, value: str) -> bytes:
    """A HeaderValueOption."""
    # Envoy reads raw_value alone, overwrites unless told to append, and fails the request on a line break in a value.
    raw = (value if value.isprintable() else _printable(value)).encode()
    return _field(FIRST, _field(FIRST, name.encode()) + (_field(THIRD, raw) if raw else b""))


def _content_length(size: int) -> bytes:
    # The option every body needs, in one step: none of its lengths ever takes a second byte.
    digits = b"%d" % size
    n = len(digits)
    return b"\x0a%c\x0a%c\x0a\x0eContent-Length\x1a%c%b" % (n + 20, n + 18, n, digits)


def _printable(value: str) -> str:
    return "".join([char if char.isprintable() else " " for char in value])


_destinations: Final[dict[str, tuple[bytes, bytes]]] = {}
"""Destination → the entry of `set_headers` and the metadata that name it."""


def _remember(destination: str) -> tuple[bytes, bytes]:
    made = _option(DESTINATION, destination), _metadata({"envoy.lb": {DESTINATION: destination}})
    if len(_destinations) >= MOST_REMEMBERED:
        _destinations.clear()
    _destinations[destination] = made
    return made


def _with_destination(metadata: Metadata, destination: str) -> bytes:
    """A plug-in that writes the namespace `envoy.lb` adds to it and can't take the destination away."""
    return _metadata({**metadata, "envoy.lb": {**metadata.get("envoy.lb", {}), DESTINATION: destination}})


def _metadata(metadata: Metadata) -> bytes:
    """Dynamic metadata by namespace: appended to an answer, it is part of it."""
    answer = ProcessingResponse()
    for namespace, values in metadata.items():
        inner = Struct()
        inner.update(dict(values))
        answer.dynamic_metadata.fields[namespace].struct_value.CopyFrom(inner)
    sent: bytes = answer.SerializeToString()
    return sent


def with_metadata(answers: list[bytes], metadata: Metadata) -> list[bytes]:
    """The answers, the last one with dynamic metadata, by namespace."""
    return [*answers[:-1], answers[-1] + _metadata(metadata)] if metadata and answers else answers


def pieces(kind: BodyKind, body: bytes, *, end: bool, even_empty: bool) -> list[bytes]:
    """`body` in streamed pieces of at most CHUNK_BYTES; `end` marks the last. Nothing gives one if `even_empty`."""
    if len(body) <= CHUNK_BYTES:
        return [_piece(kind, body, end)] if body or even_empty else []
    starts = range(0, len(body), CHUNK_BYTES)
    return [_piece(kind, body[at : at + CHUNK_BYTES], end and at + CHUNK_BYTES >= len(body)) for at in starts]


def _piece(kind: BodyKind, body: bytes, end: bool) -> bytes:
    before = FIRST + _size(len(body)) if body else b""
    after = _ENDS if end else b""
    return b"".join([wrapping(kind, len(before) + len(body) + len(after)), before, body, after])


_ENDS: Final = b"\x10\x01"


_wrappings: Final[dict[BodyKind, dict[int, bytes]]] = {"request_body": {}, "response_body": {}}


def wrapping(kind: BodyKind, size: int) -> bytes:
    """What stands before a StreamedBodyResponse of so many bytes.

    Envoy's HttpBody has the same fields by the same numbers: put before its bytes, this sends a piece on.
    """
    known = _wrappings[kind]
    made = known.get(size)
    if made is None:
        mutation = THIRD + _size(size)
        changed = THIRD + _size(len(mutation) + size) + mutation
        response = FIRST + _size(len(changed) + size) + changed
        made = KIND[kind] + _size(len(response) + size) + response
        if len(known) >= MOST_REMEMBERED:
            known.clear()
        known[size] = made
    return made


def untouched(kind: Literal["request_headers", "request_body", "response_body"]) -> bytes:
    """Go on with what you have."""
    return KIND[kind] + b"\x02\x0a\x00"


def replaced_body(body: bytes, *, fixed: bool) -> bytes:
    """Another body for a buffered or streamed response; `fixed` where its length is announced in a header."""
    changed = CommonResponse(body_mutation=BodyMutation(body=body))
    if fixed:
        changed.header_mutation.set_headers.append(
            HeaderValueOption.FromString(_header("content-length", str(len(body))))
        )
    sent: bytes = ProcessingResponse(response_body=BodyResponse(response=changed)).SerializeToString()
    return sent


def response_headers(set_headers: dict[str, str], remove: tuple[str, ...]) -> bytes:
    """The answer to the response's headers: our mark on them, and what else is set and removed."""
    return _MARKED if not set_headers and not remove else _response_headers({**MARK, **set_headers}, remove)


def _response_headers(set_headers: dict[str, str], remove: tuple[str, ...]) -> bytes:
    set_fields = b"".join([_option(name, value) for name, value in set_headers.items()])
    removed = b"".join([_field(SECOND, name.encode()) for name in remove])
    return _field(KIND["response_headers"], _field(FIRST, _field(SECOND, set_fields + removed)))


MARK: Final = {"x-went-into-resp-headers": "true"}
_MARKED: Final = _response_headers(MARK, ())


def trailers(kind: Literal["request_trailers", "response_trailers"]) -> bytes:
    return KIND[kind] + b"\x00"


def refused(refusal: Refused) -> bytes:
    """The answer the client gets instead of an engine's: status, reason header and one line of text."""
    answer = ProcessingResponse()
    immediate = answer.immediate_response
    # A plug-in may refuse with any number; a client must get an error.
    immediate.status.code = refusal.status if 400 <= refusal.status <= 599 else 500
    immediate.body = refusal.text.encode()
    immediate.details = refusal.reason or "refused_by_endpoint_picker"
    named = {DROPPED_REASON: refusal.reason} if refusal.reason else {}
    if refusal.retry_after_s is not None:
        named["retry-after"] = str(max(1, ceil(refusal.retry_after_s)))
    for name, value in named.items():
        immediate.headers.set_headers.append(HeaderValueOption.FromString(_header(name, value)))
    sent: bytes = answer.SerializeToString()
    return sent
