"""The suite's echo server: `python -m tests.conformance.echo 127.0.1.1:3000 h2c=127.0.1.1:3001 …`

Every request is answered with 200 and JSON that tells who answered: the address as `pod`, the port as `httpPort`. With
`h2c=` a port speaks HTTP/2 without TLS and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence

from aiohttp import web
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded


def told(address: tuple[str, int], method: str, path: str) -> bytes:
    return json.dumps({"pod": address[0], "httpPort": str(address[1]), "method": method, "path": path}).encode()


async def http1(request: web.Request) -> web.Response:
    await request.read()
    assert request.transport is not None
    address = request.transport.get_extra_info("sockname")
    return web.Response(body=told(address, request.method, request.path), content_type="application/json")


class Http2(asyncio.Protocol):
    """One connection with prior knowledge."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2 = H2Connection(H2Configuration(client_side=False))
        self._asked: dict[int, dict[bytes, bytes]] = {}
        self._h2.initiate_connection()
        transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, RequestReceived):
                self._asked[event.stream_id] = {bytes(key): bytes(value) for key, value in event.headers}
            elif isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._answer(event.stream_id)
        self._transport.write(self._h2.data_to_send())

    def _answer(self, stream: int) -> None:
        asked = self._asked.pop(stream)
        body = told(self._transport.get_extra_info("sockname"), asked[b":method"].decode(), asked[b":path"].decode())
        self._h2.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
        self._h2.send_data(stream, body, end_stream=True)


async def serve(places: Sequence[str]) -> None:
    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", http1)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    for place in places:
        host, _, port = place.removeprefix("h2c=").rpartition(":")
        if place.startswith("h2c="):
            await asyncio.get_running_loop().create_server(Http2, host, int(port))
        else:
            await web.TCPSite(runner, host, int(port)).start()
    print("listening", flush=True)  # noqa: T201 - what whoever started it waits for
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]))
