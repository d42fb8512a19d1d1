"""A raw HTTP/1.1 engine: the path says how it answers, every request head and body is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
JSON = json.dumps({"id": "1", "model": "tiny", "choices": [{"text": "hi"}], "usage": USAGE}).encode()
EVENTS = [
    b"data: %b\n\n" % json.dumps(event).encode()
    for event in (*({"choices": [{"text": f"w{n}"}]} for n in range(4)), {"choices": [], "usage": USAGE})
] + [b"data: [DONE]\n\n"]


def _head(status: str, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def _fixed(status: str, body: bytes) -> bytes:
    return _head(status, "content-type: application/json", "x-engine: a", f"content-length: {len(body)}") + body


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


SSE = _head("200 OK", "content-type: text/event-stream", "transfer-encoding: chunked")
UPGRADED = _head("101 Switching Protocols", "upgrade: websocket", "connection: upgrade")
FIXED = {
    "/500": _fixed("500 Internal Server Error", b'{"error":"boo"}'),
    "/204": _head("204 No Content", "x-engine: a"),
    "/v1/completions": _fixed("200 OK", JSON),
    "/v1/models": _fixed("200 OK", JSON),
}


class Closed(Exception):
    """The engine breaks the connection."""


@dataclass
class Upstream:
    port: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    hung: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request that gets no (whole) answer has arrived."""
    cut: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closed the connection of such a request."""

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def header(self, name: str) -> list[str]:
        """Values of a header in the last request."""
        lines = (line.partition(": ") for line in self.heads[-1].split("\r\n"))
        return [value for key, _, value in lines if key.lower() == name]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._serve_one(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, Closed):
            pass  # cancelled: the loop ends with the test; Python 3.11 would log it as an unhandled error
        finally:
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
        self.heads.append(head)
        method, path = head.split()[:2]
        upgrade = "upgrade: websocket" in head.lower()
        self.bodies.append(b"" if upgrade else await _read_body(reader, head.lower()))
        if upgrade:
            writer.write(UPGRADED)
            writer.write(await reader.readexactly(4))
        elif method == "HEAD":
            writer.write(FIXED[path].partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        elif path in FIXED:
            writer.write(FIXED[path])
        else:
            await self._misbehave(path, reader, writer)

    async def _misbehave(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """/sse is well, /late after a while; /hang, /hang-mid wait for ever; /close, /die, /die-early break off."""
        if path == "/late":
            await asyncio.sleep(0.5)
        if path in {"/sse", "/late", "/hang-mid", "/die", "/die-early"}:
            writer.write(SSE + _chunk(EVENTS[0]))
            await writer.drain()
        if path.startswith("/hang"):
            self.hung.set()
            await reader.read()
            self.cut.set()
        if path in {"/die", "/sse", "/late"}:
            await asyncio.sleep(0.1)  # so that Envoy passes the first piece on by itself
        if path not in {"/sse", "/late"}:
            raise Closed
        for event in EVENTS[1:]:
            writer.write(_chunk(event))
            await writer.drain()
            await asyncio.sleep(0.03)
        writer.write(b"0\r\n\r\n")


async def _read_body(reader: asyncio.StreamReader, head: str) -> bytes:
    if "transfer-encoding: chunked" not in head:
        length = next((line for line in head.split("\r\n") if line.startswith("content-length:")), ":0")
        return await reader.readexactly(int(length.split(":")[1]))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body


@asynccontextmanager
async def listening() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=8 << 20)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        # A connection that was just accepted gets its transport: a server that is closed before would leak it.
        for _ in range(3):
            await asyncio.sleep(0)
        server.close()
