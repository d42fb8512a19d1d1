"""A raw HTTP/1.1 client: sends exactly the bytes it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset


@dataclass(frozen=True)
class Reply:
    """What came back; status 0 if the connection closed without a byte, `whole` False if in the middle of a body."""

    status: int
    head: str
    body: bytes
    whole: bool = True

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name:
                return value.strip()
        return None


def request(method: str, path: str, *headers: str, body: bytes | None = None, close: bool = True) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: test", *(["connection: close"] if close else []), *headers]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def fetch(port: int, *parts: bytes | float, timeout_s: float = 15.0) -> Reply:
    """Send the parts (a number is a pause in seconds) and read until the other side closes."""
    async with asyncio.timeout(timeout_s), connected(port) as (reader, writer):
        reply = asyncio.create_task(_drained(reader))
        with suppress(ConnectionError):  # an early refusal may close the connection under a long body
            for part in parts:
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
                    await writer.drain()
        return parse(await reply)


async def _drained(reader: asyncio.StreamReader) -> bytes:
    wire = b""
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            wire += piece
    return wire


def parse(wire: bytes) -> Reply:
    if not wire:
        return Reply(0, "", b"")
    head, _, body = wire.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    text = head.decode("latin1")
    whole = True
    if body and "transfer-encoding: chunked" in text.lower():
        body, whole = _unchunked(body)
    return Reply(int(text.split()[1]), text, body, whole)


def _unchunked(wire: bytes) -> tuple[bytes, bool]:
    body = b""
    while wire:
        size, _, wire = wire.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return body, True
        body, wire = body + wire[:length], wire[length + 2 :]
    return body, False


async def http2_post(port: int, path: str, body: bytes, trailers: list[tuple[str, str]]) -> dict[str, Any]:
    """One HTTP/2 request with trailers, prior knowledge."""
    h2 = H2Connection()
    h2.initiate_connection()
    pseudo = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "test")]
    h2.send_headers(1, [*pseudo, ("content-type", "application/json")])
    h2.send_data(1, body)
    h2.send_headers(1, trailers, end_stream=True)
    async with asyncio.timeout(15), connected(port) as (reader, writer):
        writer.write(h2.data_to_send())
        seen: dict[str, Any] = {"status": 0, "body_bytes": 0}
        while True:
            for event in h2.receive_data(await reader.read(65536)):
                if isinstance(event, ResponseReceived):
                    seen["status"] = int(dict(event.headers)[b":status"])
                elif isinstance(event, DataReceived):
                    seen["body_bytes"] += len(event.data)
                elif isinstance(event, StreamEnded | StreamReset):
                    return seen
            writer.write(h2.data_to_send())
