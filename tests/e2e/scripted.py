"""An ext_proc server that does what a script says and keeps every message as bytes, for recordings and experiments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from .answers import Answer, Message, ends, kind, picked, pieces, plain, streamed
from .grpc_engine import Context

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


@dataclass(frozen=True)
class Entry:
    """One message on the wire."""

    by: str
    """envoy or picker."""
    wire: bytes


@dataclass
class Stream:
    """One ext_proc stream as the script sees it."""

    context: Context
    entries: list[Entry] = field(default_factory=list)
    end: str = ""
    """eof or cancelled (Envoy ended it), returned or aborted (the script did)."""

    async def read(self) -> Message | None:
        """The next message, None when Envoy has half-closed."""
        wire = await self.context.read()
        if not isinstance(wire, bytes):  # grpc.aio.EOF
            self.end = "eof"
            return None
        self.entries.append(Entry("envoy", wire))
        return Message.FromString(wire)

    async def write(self, *answers: Answer) -> None:
        for answer in answers:
            wire = answer.SerializeToString()
            self.entries.append(Entry("picker", wire))
            await self.context.write(wire)

    def received(self) -> list[Message]:
        return [Message.FromString(entry.wire) for entry in self.entries if entry.by == "envoy"]

    def kinds(self) -> list[str]:
        """Names of Envoy's messages, repeats once, `!` after one that ends its direction."""
        names = [kind(message) for message in self.received()]
        return [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]


Script = Callable[[Stream], Awaitable[None]]


@dataclass
class Picker:
    """A running scripted server; `script` may be exchanged between requests."""

    script: Script
    port: int = 0
    streams: list[Stream] = field(default_factory=list)
    ended: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def process(self, _: object, context: Context) -> None:
        stream = Stream(context)
        self.streams.append(stream)
        try:
            await self.script(stream)
            stream.end = stream.end or "returned"
        except asyncio.CancelledError:
            stream.end = "cancelled"
            raise
        finally:
            stream.end = stream.end or "aborted"
            async with self.ended:
                self.ended.notify_all()

    async def finished(self, count: int, timeout_s: float = 10.0) -> list[Stream]:
        """The streams, once `count` of them have ended."""
        async with asyncio.timeout(timeout_s), self.ended:
            await self.ended.wait_for(lambda: sum(bool(s.end) for s in self.streams) >= count)
        return self.streams


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Picker]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    picker = Picker(script)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(picker.process)
    generic = grpc.method_handlers_generic_handler(SERVICE, {"Process": handler})
    server.add_generic_rpc_handlers((generic,))
    picker.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield picker
    finally:
        await server.stop(0)


@dataclass
class Picking:
    """The smallest correct script: every request goes to `destination`, in whichever body modes Envoy announces."""

    destination: str
    early: bool = False
    """Answer the headers at once and send full-duplex pieces back as they come."""
    instead: Mapping[str, Sequence[Answer]] = field(default_factory=dict)
    """Other answers to a kind of message, `!` for the one that ends its direction: {"response_body!": []}."""
    leave_after: str = ""
    """The kind of message after whose answers the server ends the stream with OK."""

    async def __call__(self, stream: Stream) -> None:
        turn = _Turn(self.destination, self.early)
        while (message := await stream.read()) is not None:
            if message.observability_mode:
                continue
            usual = turn.answers(message)
            await stream.write(*self.instead.get(kind(message), usual))
            if kind(message) == self.leave_after:
                return


@dataclass
class _Turn:
    destination: str
    early: bool
    request_mode: str = ""
    response_mode: str = ""
    held: bytes | None = None
    """The request body so far, while the headers wait for their answer."""

    def answers(self, message: Message) -> list[Answer]:
        which = str(message.WhichOneof("request"))
        if which == "request_headers":
            return self._headers(message)
        if which == "request_body":
            return self._body(message)
        if which == "request_trailers":
            return [*self._released(end=False), plain(which)]
        if which == "response_body" and self.response_mode == "FULL_DUPLEX_STREAMED":
            return [streamed(which, message.response_body.body, message.response_body.end_of_stream)]
        return [plain(which)]

    def _headers(self, message: Message) -> list[Answer]:
        config = message.protocol_config
        self.request_mode = ProcessingMode.BodySendMode.Name(config.request_body_mode)
        self.response_mode = ProcessingMode.BodySendMode.Name(config.response_body_mode)
        if ends(message) or self.early or self.request_mode in {"NONE", "STREAMED"}:
            return [picked("request_headers", self.destination)]
        if self.request_mode == "FULL_DUPLEX_STREAMED":
            self.held = b""
            return []
        return [plain("request_headers")]

    def _body(self, message: Message) -> list[Answer]:
        if self.held is not None:
            self.held += message.request_body.body
            return self._released(end=True) if ends(message) else []
        if self.request_mode.startswith("BUFFERED"):
            return [picked("request_body", self.destination)]
        if self.request_mode == "FULL_DUPLEX_STREAMED":
            return [streamed("request_body", message.request_body.body, ends(message))]
        return [plain("request_body")]

    def _released(self, *, end: bool) -> list[Answer]:
        if self.held is None:
            return []
        body, self.held = self.held, None
        return [picked("request_headers", self.destination), *pieces("request_body", body, end)]
