"""Streamed responses: pieces/s as engines make them, sent to a server that speaks ext_proc, or through an Envoy.

`python -m benchmarks.pieces PORT STREAMS SECONDS [tls]` plays Envoy: STREAMS open responses on two connections, each
with 50 pieces/s that come one by one, and prints how many were answered. `--engine PORT` is an engine that streams 50
pieces/s to each request; `--clients PORT STREAMS SECONDS` asks it, through an Envoy, and counts what comes back.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import sys
import time
from typing import Any

import uvloop
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from benchmarks.server import METHOD, PAGE, messages

PIECES_PER_S, CONNECTIONS = 50, 2
FIELDS = [
    (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "x"),
    ("content-type", "application/grpc"), ("te", "trailers"),
]  # fmt: skip
EVENT = (
    b'data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":" token","finish_reason":null}]}\n\n'
)


class Talker(asyncio.Protocol):
    """One connection with several open responses."""

    def __init__(self, streams: int) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._streams = streams
        self.bytes = 0
        self._message = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 28)
        head, request, answer, piece = (struct.pack(">BL", 0, len(w)) + w for w in messages(complete=False))
        self._message = piece
        for number in range(1, 2 * self._streams, 2):
            self._h2.send_headers(number, FIELDS)
            self._h2.send_data(number, head + request + answer)
        transport.write(self._h2.data_to_send())

    def data_received(self, wire: bytes) -> None:
        for event in self._h2.receive_data(wire):
            if isinstance(event, DataReceived):
                self.bytes += len(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.transport.write(self._h2.data_to_send())

    def say(self, at: int) -> None:
        self._h2.send_data(1 + 2 * at, self._message)
        self.transport.write(self._h2.data_to_send())


async def play(port: int, streams: int, seconds: float, tls: bool) -> int:
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context() if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
    share = streams // CONNECTIONS
    made = [
        await loop.create_connection(lambda: Talker(share), "127.0.0.1", port, ssl=context) for _ in range(CONNECTIONS)
    ]
    talkers = [talker for _, talker in made]
    await asyncio.sleep(1)
    before = sum(talker.bytes for talker in talkers)
    gap = 1 / PIECES_PER_S / streams
    began, sent = time.monotonic(), 0
    print("begun", flush=True)
    while (now := time.monotonic() - began) < seconds:
        while sent * gap < now:
            talkers[sent % CONNECTIONS].say(sent // CONNECTIONS % share)
            sent += 1
            await asyncio.sleep(0)
        await asyncio.sleep(gap / 2)
    await asyncio.sleep(0.5)
    if sum(talker.bytes for talker in talkers) - before < sent * 60:
        raise RuntimeError("pieces were lost")
    return sent


class Engine(asyncio.Protocol):
    """Answers a POST with a stream that never ends, anything else with a page of metrics."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._seen = b""
        self._timer: asyncio.TimerHandle | None = None
        self._chunk = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)

    def data_received(self, wire: bytes) -> None:
        self._seen += wire
        if self._seen.startswith(b"GET") and b"\r\n\r\n" in self._seen:
            page = PAGE.encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (len(page), page)
            )
            self._seen = b""
        elif self._timer is None and b"}" in self._seen:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            self._next = self._loop.time()
            self._beat()

    def _beat(self) -> None:
        self._transport.write(self._chunk)
        self._next = max(self._next + 1 / PIECES_PER_S, self._loop.time() - 1)
        self._timer = self._loop.call_at(self._next, self._beat)

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def engine(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


class Reader(asyncio.Protocol):
    """A client of a streamed response."""

    def __init__(self) -> None:
        self.bytes = 0

    def connection_made(self, transport: Any) -> None:
        body = b'{"model": "m", "prompt": "Once upon a time", "stream": true}'
        head = (
            b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        )
        transport.write(head % len(body) + body)

    def data_received(self, wire: bytes) -> None:
        self.bytes += len(wire)


async def clients(port: int, streams: int, seconds: float) -> int:
    loop = asyncio.get_running_loop()
    readers = []
    for _ in range(streams):
        readers.append((await loop.create_connection(Reader, "127.0.0.1", port))[1])
        await asyncio.sleep(0.011)
    await asyncio.sleep(1)
    before = sum(reader.bytes for reader in readers)
    print("begun", flush=True)
    await asyncio.sleep(seconds)
    print("ended", flush=True)
    return round((sum(reader.bytes for reader in readers) - before) / (len(EVENT) + 6))


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "--engine":
        uvloop.run(engine(int(words[1])))
    elif words[0] == "--clients":
        print(uvloop.run(clients(int(words[1]), int(words[2]), float(words[3]))))
    else:
        print(uvloop.run(play(int(words[0]), int(words[1]), float(words[2]), "tls" in words)))
