"""Builds what Envoy is told: destination, body pieces, refusals. The only place that knows the messages' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import intern
from typing import Any, Literal

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ProcessingRequest,
    ProcessingResponse,
    TrailersResponse,
)
from google.protobuf.struct_pb2 import Struct, Value

from epp.headers import CONTROL, DESTINATION, DROPPED_REASON, Metadata
from epp.rules import Forward
from epp.types import Refused

CHUNK_BYTES = 62_000
"""Largest streamed piece: some Envoy-based gateways refuse messages over 64 KiB."""
BodyKind = Literal["request_body", "response_body"]


def read_headers(headers: HeaderMap) -> dict[str, tuple[str, ...]]:
    """Header name (lower-case) → all its values. Envoy fills `raw_value`; hand-made messages may fill `value`."""
    found: dict[str, tuple[str, ...]] = {}
    for header in headers.headers:
        value = header.raw_value.decode("utf-8", "replace") if header.raw_value else header.value
        # The few names there are recur in every open stream.
        key = intern(header.key.lower())
        found[key] = (*found[key], value) if key in found else (value,)
    return found


def read_metadata(message: ProcessingRequest) -> dict[str, dict[str, Any]]:
    """Filter metadata by namespace; {} if none is forwarded (the field itself is there on every message)."""
    forwarded = message.metadata_context.filter_metadata
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


def routed_headers(forward: Forward, body_bytes: int) -> ProcessingResponse:
    """The answer to the request's headers that sends it to its endpoint."""
    answer = ProcessingResponse(request_headers=HeadersResponse(response=_routing(forward, body_bytes)))
    add_metadata(answer, _destination_metadata(forward))
    return answer


def routed_body(forward: Forward, body_bytes: int) -> ProcessingResponse:
    """The answer to a buffered body that sends the request to its endpoint."""
    routing = _routing(forward, body_bytes)
    if forward.body is not None:
        routing.body_mutation.body = forward.body
    answer = ProcessingResponse(request_body=BodyResponse(response=routing))
    add_metadata(answer, _destination_metadata(forward))
    return answer


def _routing(forward: Forward, body_bytes: int) -> CommonResponse:
    options = [_option(DESTINATION, forward.destination)]
    if body_bytes and not forward.bodiless:
        options.append(_option("Content-Length", str(body_bytes)))
    options += [_option(name, value) for name, value in forward.set_headers.items()]
    # Clearing the route cache lets routes that match on our headers take effect; it is honoured only with a mutation.
    return CommonResponse(
        clear_route_cache=True,
        header_mutation=HeaderMutation(set_headers=options, remove_headers=CONTROL),
    )


def _destination_metadata(forward: Forward) -> Metadata:
    """A plug-in that writes the namespace `envoy.lb` adds to it and can't take the destination away."""
    extra = forward.metadata.get("envoy.lb", {})
    return {**forward.metadata, "envoy.lb": {**extra, DESTINATION: forward.destination}}


def _option(name: str, value: str) -> HeaderValueOption:
    # Envoy reads raw_value alone, overwrites unless told to append, and fails the request on a line break in a value.
    option = HeaderValueOption()
    option.header.key = name
    option.header.raw_value = (value if value.isprintable() else _printable(value)).encode()
    return option


def _printable(value: str) -> str:
    return "".join([char if char.isprintable() else " " for char in value])


def pieces(kind: BodyKind, body: bytes, *, end: bool, even_empty: bool) -> list[ProcessingResponse]:
    """`body` in streamed pieces of at most CHUNK_BYTES; `end` marks the last. Nothing gives one if `even_empty`."""
    if len(body) <= CHUNK_BYTES:
        return [_piece(kind, body, end)] if body or even_empty else []
    starts = range(0, len(body), CHUNK_BYTES)
    return [_piece(kind, body[at : at + CHUNK_BYTES], end and at + CHUNK_BYTES >= len(body)) for at in starts]


def _piece(kind: BodyKind, body: bytes, end: bool) -> ProcessingResponse:
    answer = ProcessingResponse()
    streamed = getattr(answer, kind).response.body_mutation.streamed_response
    streamed.body = body
    streamed.end_of_stream = end
    return answer


def untouched(kind: Literal["request_headers", "request_body", "response_body"]) -> ProcessingResponse:
    """Go on with what you have."""
    answer = ProcessingResponse()
    getattr(answer, kind).response.SetInParent()
    return answer


def replaced_body(body: bytes, *, fixed: bool) -> ProcessingResponse:
    """Another body for a buffered or streamed response; `fixed` where its length is announced in a header."""
    changed = CommonResponse(body_mutation=BodyMutation(body=body))
    if fixed:
        changed.header_mutation.set_headers.append(_option("content-length", str(len(body))))
    return ProcessingResponse(response_body=BodyResponse(response=changed))


def response_headers(set_headers: Mapping[str, str], remove: Iterable[str], metadata: Metadata) -> ProcessingResponse:
    mutation = HeaderMutation(
        set_headers=[_option(name, value) for name, value in set_headers.items()], remove_headers=remove
    )
    answer = ProcessingResponse(response_headers=HeadersResponse(response=CommonResponse(header_mutation=mutation)))
    if metadata:
        add_metadata(answer, metadata)
    return answer


def trailers(kind: Literal["request_trailers", "response_trailers"]) -> ProcessingResponse:
    answer = ProcessingResponse()
    getattr(answer, kind).CopyFrom(TrailersResponse())
    return answer


def refused(refusal: Refused, headers: Mapping[str, str]) -> ProcessingResponse:
    """The answer the client gets instead of an engine's: status, reason header and one line of text."""
    answer = ProcessingResponse()
    immediate = answer.immediate_response
    # A plug-in may refuse with any number; a client must get an error.
    immediate.status.code = refusal.status if 400 <= refusal.status <= 599 else 500
    immediate.body = f"inference error: {refusal.code} - {refusal.message}".encode()
    immediate.details = refusal.reason or "refused_by_endpoint_picker"
    named = {DROPPED_REASON: refusal.reason} if refusal.reason else {}
    for name, value in {**named, **headers}.items():
        immediate.headers.set_headers.append(_option(name, value))
    return answer


def add_metadata(answer: ProcessingResponse, metadata: Metadata) -> None:
    """Attach dynamic metadata, by namespace."""
    for namespace, values in metadata.items():
        inner = Struct()
        inner.update(dict(values))
        answer.dynamic_metadata.fields[namespace].struct_value.CopyFrom(inner)
