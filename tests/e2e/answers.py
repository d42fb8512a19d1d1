"""What an ext_proc server may say, built by hand from the protocol's messages; shares nothing with the picker."""

from __future__ import annotations

from typing import TypeAlias

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from .bootstrap import DESTINATION

Message: TypeAlias = ProcessingRequest
Answer: TypeAlias = ProcessingResponse
PIECE_BYTES = 62_000


def option(key: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(header=HeaderValue(key=key, raw_value=value.encode()))


def plain(name: str) -> Answer:
    """An answer of the named kind that changes nothing."""
    answer = Answer()
    getattr(answer, name).SetInParent()
    return answer


def picked(name: str, destination: str) -> Answer:
    """`request_headers` or `request_body` with the destination as header and as metadata."""
    answer = Answer()
    common = getattr(answer, name).response
    common.clear_route_cache = True
    common.header_mutation.set_headers.append(option(DESTINATION, destination))
    answer.dynamic_metadata.update({"envoy.lb": {DESTINATION: destination}})
    return answer


def streamed(name: str, body: bytes, end: bool) -> Answer:
    """One piece of a full-duplex body; `name` is request_body or response_body."""
    answer = Answer()
    piece = getattr(answer, name).response.body_mutation.streamed_response
    piece.body = body
    piece.end_of_stream = end
    return answer


def pieces(name: str, body: bytes, end: bool) -> list[Answer]:
    """The body in full-duplex pieces, at least one."""
    cuts = range(0, max(len(body), 1), PIECE_BYTES)
    return [streamed(name, body[at : at + PIECE_BYTES], end and at + PIECE_BYTES >= len(body)) for at in cuts]


def replaced(name: str, body: bytes) -> Answer:
    """A BUFFERED or STREAMED body exchanged for another."""
    answer = Answer()
    getattr(answer, name).response.body_mutation.body = body
    return answer


def immediate(status: int, body: str = "") -> Answer:
    answer = Answer()
    answer.immediate_response.status.code = status
    answer.immediate_response.body = body.encode()
    return answer


def ends(message: Message) -> bool:
    """Whether this message is the last of its direction's headers and body."""
    return bool(getattr(getattr(message, message.WhichOneof("request")), "end_of_stream", False))


def kind(message: Message) -> str:
    """request_headers, response_body!, …: `!` if it ends its direction."""
    return str(message.WhichOneof("request")) + "!" * ends(message)
