"""The picker on jh2, the best HTTP/2 library there is for Python, to measure it beside our own layer. Not shipped.

It serves one method and does what a benchmark needs: messages over DATA frames, windows both ways, TLS. It has none of
the limits that a server must have. `python -m benchmarks.jh2_face FLAGS` is `epp FLAGS` with this face.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import sys
from collections.abc import Callable
from typing import Any

from jh2.config import H2Configuration
from jh2.connection import H2Connection
from jh2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from jh2.settings import SettingCodes

from epp import cli
from epp.extproc import server
from epp.extproc.dialogue import Dialogue
from epp.extproc.service import StreamWatch
from epp.extproc.tls import Certificates, Terms, server_context

RESPONSE = [(b":status", b"200"), (b"content-type", b"application/grpc")]
TRAILERS = [(b"grpc-status", b"0")]


class Call:
    """One stream."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.wire = b""
        self.waiting = b""
        self.answered = False
        self.ended = False


class Face(asyncio.Protocol):
    """One connection."""

    def __init__(self, open_dialogue: Callable[[], Dialogue], watch: StreamWatch) -> None:
        self._open, self._watch = open_dialogue, watch
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=True))
        self._calls: dict[int, Call] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 1 << 20
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(16 << 20)
        self._flush()

    def data_received(self, wire: bytes) -> None:
        for event in self._h2.receive_data(wire):
            self._act(event)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        for number in list(self._calls):
            self._close(number)

    def _act(self, event: Any) -> None:
        number = getattr(event, "stream_id", 0)
        if isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, number)
            self._arrived(number, event.data)
        elif isinstance(event, RequestReceived):
            self._watch.stream_opened()
            self._calls[number] = Call(self._open())
        elif isinstance(event, StreamEnded) and number in self._calls:
            self._calls[number].ended = True
            self._pump(number)
        elif isinstance(event, StreamReset) and number in self._calls:
            self._close(number)
        elif isinstance(event, WindowUpdated):
            for blocked in [number] if number else list(self._calls):
                self._pump(blocked)

    def _arrived(self, number: int, payload: bytes) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        call.wire = call.wire + payload if call.wire else payload
        while len(call.wire) >= 5:
            (length,) = struct.unpack_from(">L", call.wire, 1)
            if len(call.wire) < 5 + length:
                break
            message, call.wire = call.wire[5 : 5 + length], call.wire[5 + length :]
            replies = call.dialogue.receive(message)
            if not isinstance(replies, list):
                raise RuntimeError("only for configurations without slow signals, as the benchmarks' are")
            self._say(number, call, replies)

    def _say(self, number: int, call: Call, replies: list[bytes]) -> None:
        if replies and not call.answered:
            call.answered = True
            self._h2.send_headers(number, RESPONSE)
        for reply in replies:
            call.waiting += struct.pack(">BL", 0, len(reply)) + reply
        self._pump(number)

    def _pump(self, number: int) -> None:
        call = self._calls.get(number)
        if call is None:
            return
        while call.waiting:
            size = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(call.waiting))
            if size <= 0:
                return
            self._h2.send_data(number, call.waiting[:size])
            call.waiting = call.waiting[size:]
        call.dialogue.sent()
        if call.ended or call.dialogue.over:
            self._h2.send_headers(number, TRAILERS if call.answered else RESPONSE + TRAILERS, end_stream=True)
            self._close(number)

    def _close(self, number: int) -> None:
        self._calls.pop(number).dialogue.close("client-disconnect")
        self._watch.stream_closed(0.0, "OK")

    def _flush(self) -> None:
        wire = self._h2.data_to_send()
        if wire:
            self._transport.write(wire)


class Jh2Server:
    """In the place of GrpcServer."""

    def __init__(
        self, open_dialogue: Callable[[], Dialogue], watch: StreamWatch, readiness: object, **_: object
    ) -> None:
        self._make = lambda: Face(open_dialogue, watch)
        self._server: asyncio.Server | None = None

    async def start(self, port: int, health_port: int, certificates: Certificates | None) -> tuple[int, int]:
        tls: ssl.SSLContext | None = None
        if certificates is not None:
            tls = server_context(certificates, Terms(alpn=("h2",)))
        self._server = await asyncio.get_running_loop().create_server(self._make, "127.0.0.1", port, ssl=tls)
        return port, health_port

    async def stop(self, grace_s: float) -> None:
        if self._server is not None:
            self._server.close()


if __name__ == "__main__":
    server.GrpcServer = Jh2Server  # type: ignore[assignment,misc]
    sys.argv[1:] += ["--transport=grpcio"]
    sys.exit(cli.main())
