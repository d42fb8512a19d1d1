"""A gateway made by hand: ext_proc streams over real gRPC, every message written here."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from google.protobuf.json_format import MessageToDict, ParseDict

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
PATIENCE_S = 15.0
CHAT = b'{"model":"tiny","messages":[{"role":"user","content":"hello"}]}'
JSON = {":status": "200", "content-type": "application/json"}
SSE = {":status": "200", "content-type": "text/event-stream"}
DESTINATION = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"

Pairs = Mapping[str, str] | list[tuple[str, str]]
Metadata = Mapping[str, Any]  # namespaces of JSON-like values


def header_map(pairs: Pairs, *, as_text: bool = False) -> HeaderMap:
    """`as_text`: in the field `value`, as test clients do, instead of Envoy's `raw_value`."""
    items = pairs if isinstance(pairs, list) else list(pairs.items())
    made = [
        HeaderValue(key=key, value=v) if as_text else HeaderValue(key=key, raw_value=v.encode()) for key, v in items
    ]
    return HeaderMap(headers=made)


def tell(message: ProcessingRequest, metadata: Metadata) -> ProcessingRequest:
    """The message with filter metadata."""
    for namespace, values in metadata.items():
        ParseDict(values, message.metadata_context.filter_metadata[namespace])
    return message


def head(  # long: one parameter for each thing a gateway may say first
    pairs: Pairs | None = None,
    *,
    path: str | None = "/v1/chat/completions",
    end: bool = False,
    metadata: Metadata | None = None,
    mode: int | None = ProcessingMode.FULL_DUPLEX_STREAMED,
    as_text: bool = False,
) -> ProcessingRequest:
    """The request's headers; `mode` None = a gateway that sends no protocol_config."""
    items = list((pairs or {}).items()) if not isinstance(pairs, list) else pairs
    pseudo = [] if path is None else [(":path", path), (":method", "POST")]
    message = ProcessingRequest(
        request_headers=HttpHeaders(headers=header_map([*pseudo, *items], as_text=as_text), end_of_stream=end)
    )
    if mode is not None:
        config = ProtocolConfiguration(request_body_mode=mode, response_body_mode=mode)  # type: ignore[arg-type]
        message.protocol_config.CopyFrom(config)
    return tell(message, metadata or {})


def piece(body: bytes = b"", *, end: bool = False, metadata: Metadata | None = None) -> ProcessingRequest:
    return tell(ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end)), metadata or {})


def trailers() -> ProcessingRequest:
    return ProcessingRequest(request_trailers=HttpTrailers())


def response(pairs: Pairs = JSON, *, end: bool = False, metadata: Metadata | None = None) -> ProcessingRequest:
    message = ProcessingRequest(response_headers=HttpHeaders(headers=header_map(pairs), end_of_stream=end))
    return tell(message, metadata or {})


def response_piece(body: bytes = b"", *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end))


def response_trailers() -> ProcessingRequest:
    return ProcessingRequest(response_trailers=HttpTrailers())


class Stream:
    """One open stream."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.call = channel.stream_stream(METHOD)(iter(self._sent.get, None), timeout=PATIENCE_S)

    def send(self, *messages: ProcessingRequest | bytes) -> None:
        for message in messages:
            self._sent.put(message if isinstance(message, bytes) else message.SerializeToString())

    def done(self) -> None:
        """The gateway has no more to say."""
        self._sent.put(None)

    def answer(self) -> ProcessingResponse:
        return ProcessingResponse.FromString(next(self.call))

    def answers(self, count: int) -> list[ProcessingResponse]:
        return [self.answer() for _ in range(count)]

    def rest(self) -> list[ProcessingResponse]:
        """Every answer until the picker ends the stream; raises grpc.RpcError if it ends it with an error."""
        self.done()
        return [ProcessingResponse.FromString(wire) for wire in self.call]

    def code(self) -> str:
        """How the picker ended the stream: the name of the gRPC status."""
        self.done()
        for _ in self._messages():
            pass
        return str(self.call.code().name)

    def close(self) -> None:
        self.call.cancel()
        self.done()

    def _messages(self) -> Iterator[bytes]:
        try:
            yield from self.call
        except grpc.RpcError:
            return


class Gateway:
    """One connection to a picker."""

    def __init__(self, port: int, certificate: bytes | None = None) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        if certificate is None:
            self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
        else:
            named = [*options, ("grpc.ssl_target_name_override", "localhost")]
            self.channel = grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(certificate), named)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        opened = Stream(self.channel)
        try:
            yield opened
        finally:
            opened.close()

    def say(self, *messages: ProcessingRequest | bytes) -> list[ProcessingResponse]:
        """Every answer to a stream that says just this."""
        with self.stream() as opened:
            opened.send(*messages)
            return opened.rest()

    def ask(self, pairs: Pairs | None = None, body: bytes = CHAT, **more: Any) -> list[ProcessingResponse]:
        """The answers to one request whose body comes whole; `more` as for `head`."""
        return self.say(head(pairs, **more), piece(body, end=True))

    def close(self) -> None:
        self.channel.close()


def kinds(answers: list[ProcessingResponse]) -> list[str]:
    return [str(answer.WhichOneof("response")) for answer in answers]


def set_by(answer: ProcessingResponse) -> dict[str, str]:
    """Headers that an answer sets."""
    part = getattr(answer, str(answer.WhichOneof("response")))
    mutation = part.headers if answer.HasField("immediate_response") else part.response.header_mutation
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


def removed_by(answer: ProcessingResponse) -> set[str]:
    part = getattr(answer, str(answer.WhichOneof("response")))
    return set(part.response.header_mutation.remove_headers)


def destination(answers: list[ProcessingResponse]) -> str:
    """Where the request was sent; header and metadata must say the same."""
    routed = next(answer for answer in answers if DESTINATION in set_by(answer))
    told = MessageToDict(routed.dynamic_metadata)["envoy.lb"]
    assert told[DESTINATION] == set_by(routed)[DESTINATION]
    return set_by(routed)[DESTINATION]


def refusal(answers: list[ProcessingResponse]) -> tuple[int, str, str]:
    """Status, body and reason header of the one immediate answer."""
    (answer,) = [answer for answer in answers if answer.HasField("immediate_response")]
    immediate = answer.immediate_response
    reason = set_by(answer).get("x-llm-d-request-dropped-reason", "")
    return int(immediate.status.code), immediate.body.decode(), reason


def streamed(answers: list[ProcessingResponse], kind: str) -> list[tuple[bytes, bool]]:
    """(bytes, end) of each streamed piece of `kind`."""
    found = [
        getattr(answer, kind).response.body_mutation.streamed_response for answer in answers if answer.HasField(kind)
    ]
    return [(one.body, one.end_of_stream) for one in found]
