"""Record what Envoy says: `python -m tests.e2e.record [CASE …]` rewrites tests/transcripts/ with both Envoys."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tests import transcripts

from . import client, envoy, grpc_engine, scripted, upstream
from .answers import Answer, Message, immediate
from .bootstrap import Json, Setup
from .client import request
from .experiment import Scene

BODY = json.dumps({"model": "tiny", "prompt": "Once upon a time", "max_tokens": 4}).encode()
LONG = json.dumps({"model": "tiny", "prompt": "Once upon a time " * 180_000, "max_tokens": 4}).encode()
STREAMED = json.dumps({"model": "tiny", "prompt": "Once upon a time", "stream": True}).encode()
COMPLETIONS = "/v1/completions"
JSON_TYPE = "content-type: application/json"


Client = Callable[[Scene], Awaitable[Json]]


@dataclass(frozen=True)
class Case:
    about: str
    client: Client
    setup: dict[str, Any] = field(default_factory=dict)
    destination: str = ""
    """"" = the engine."""
    early: bool = False
    script: scripted.Script | None = None
    chance: bool = False
    """How far the messages get depends on timing."""


def sends(*parts: bytes | float) -> Client:
    async def run(scene: Scene) -> Json:
        reply = await client.fetch(scene.port, *parts)
        return {"status": reply.status, "body_bytes": len(reply.body)} | ({} if reply.whole else {"cut": True})

    return run


def posts(path: str = COMPLETIONS, body: bytes = BODY, *headers: str) -> Client:
    return sends(request("POST", path, JSON_TYPE, *headers, body=body))


async def hangs_up_waiting(scene: Scene) -> Json:
    async with client.connected(scene.port) as (_, writer):
        writer.write(request("POST", "/hang", JSON_TYPE, body=BODY))
        await scene.engine.hung.wait()
    return {"hung_up": "while waiting for the response"}


async def hangs_up_reading(scene: Scene) -> Json:
    async with client.connected(scene.port) as (reader, writer):
        writer.write(request("POST", "/hang-mid", JSON_TYPE, body=STREAMED))
        await reader.readuntil(b"w0")
    return {"hung_up": "after the first piece of the response"}


async def hangs_up_sending(scene: Scene) -> Json:
    async with client.connected(scene.port) as (_, writer):
        writer.write(request("POST", COMPLETIONS, JSON_TYPE, body=BODY)[:-10])
        await writer.drain()
        await asyncio.sleep(0.2)  # until Envoy has passed on what it has; nothing tells when
    return {"hung_up": "before the request was complete"}


async def sends_trailers(scene: Scene) -> Json:
    return await client.http2_post(scene.port, COMPLETIONS, BODY, trailers=[("x-checksum", "abc")])


async def calls_grpc(scene: Scene) -> Json:
    return {"messages": await grpc_engine.call(scene.port)}


async def upgrades(scene: Scene) -> Json:
    head = request("GET", "/ws", "upgrade: websocket", "connection: upgrade", close=False)
    async with client.connected(scene.port) as (reader, writer):
        writer.write(head)
        status = (await reader.readuntil(b"\r\n\r\n")).split()[1]
        writer.write(b"ping")
        echo = await reader.readexactly(4)
    return {"status": int(status), "echo": echo.decode()}


async def refuses(stream: scripted.Stream) -> None:
    """A 400 at the end of the request body."""
    while (message := await stream.read()) is not None:
        if message.WhichOneof("request") == "request_body" and message.request_body.end_of_stream:
            await stream.write(immediate(400, "inference error: BadRequest - no"))
            return


def modes(mode: str, **more: Any) -> dict[str, Any]:
    return {"request_body": mode, "response_body": mode, **more}


CHUNKED = request("POST", COMPLETIONS, JSON_TYPE, "transfer-encoding: chunked")
CASES: dict[str, Case] = {
    "post": Case("a small JSON body, a JSON response", posts()),
    "post-3mb": Case("a body of 3 MB", posts(body=LONG)),
    "post-empty": Case("content-length: 0", posts(body=b"")),
    "post-chunked-empty": Case("a chunked body without a byte", sends(CHUNKED + b"0\r\n\r\n")),
    "post-chunked-late-end": Case(
        "a chunked body whose last, empty chunk comes later",
        sends(CHUNKED + b"%x\r\n%b\r\n" % (len(BODY), BODY), 0.2, b"0\r\n\r\n"),
    ),
    "post-two-parts": Case(
        "a body that arrives in two parts",
        sends((sent := request("POST", COMPLETIONS, JSON_TYPE, body=BODY))[:-20], 0.2, sent[-20:]),
    ),
    "post-trailers": Case("HTTP/2 request trailers", sends_trailers),
    "get": Case("no body", sends(request("GET", "/v1/models"))),
    "head": Case("HEAD: a response of headers only", sends(request("HEAD", "/v1/models"))),
    "no-content": Case("a 204: a response of headers only", posts("/204")),
    "sse": Case("a streamed response", posts("/sse", STREAMED)),
    "grpc": Case("vLLM's gRPC over h2c: response trailers", calls_grpc, {"upstream_http2": True}),
    "expect-continue": Case("expect: 100-continue", posts(COMPLETIONS, BODY, "expect: 100-continue")),
    "repeated-header": Case("a header sent twice", posts(COMPLETIONS, BODY, "x-tag: one", "x-tag: two")),
    "subset": Case("a subset hint from an earlier filter", posts(), {"subset": ("127.0.0.1:8000", "10.0.0.7")}),
    "subset-get": Case("a subset hint, no body", sends(request("GET", "/v1/models")), {"subset": ("10.0.0.7",)}),
    "no-metadata": Case("no metadata namespaces configured", posts(), {"metadata": False}),
    "websocket": Case("an upgrade to websocket, headers answered at once", upgrades, early=True),
    "early": Case("headers answered at once, pieces sent back as they come", posts(body=LONG), early=True),
    "hang-up-sending": Case("the client leaves before its body is complete", hangs_up_sending),
    "hang-up-waiting": Case("the client leaves before the response", hangs_up_waiting),
    "hang-up-reading": Case("the client leaves in the middle of the response", hangs_up_reading),
    "refused-connection": Case("nobody listens at the destination", posts(), destination="127.0.0.1:1"),
    "bad-destination": Case("the destination is no ip:port", posts(), destination="engine-one:8000"),
    "engine-500": Case("the engine answers 500", posts("/500")),
    "engine-500-suppressed": Case(
        "the engine answers 500 and Envoy adds no headers of its own", posts("/500"), {"envoy_headers": False}
    ),
    "engine-dies": Case("the engine's connection breaks in the middle of the response", posts("/die", STREAMED)),
    "engine-dies-early": Case(
        "the engine closes right after its first piece", posts("/die-early", STREAMED), chance=True
    ),
    "engine-closes": Case("the engine closes without a byte", posts("/close")),
    "immediate": Case("the picker answers 400 itself", posts(body=b"{"), script=refuses),
    "buffered": Case("BUFFERED, JSON", posts(), modes("BUFFERED")),
    "buffered-sse": Case("BUFFERED, a streamed response", posts("/sse", STREAMED), modes("BUFFERED")),
    "buffered-get": Case("BUFFERED, no body", sends(request("GET", "/v1/models")), modes("BUFFERED")),
    "buffered-trailers": Case("BUFFERED, HTTP/2 request trailers", sends_trailers, modes("BUFFERED")),
    "buffered-3mb": Case("BUFFERED, 3 MB", posts(body=LONG), modes("BUFFERED", buffer_bytes=8 << 20)),
    "buffered-too-long": Case("BUFFERED, more than Envoy's buffer", posts(body=LONG), modes("BUFFERED"), chance=True),
    "buffered-partial": Case("BUFFERED_PARTIAL, more than the buffer", posts(body=LONG), modes("BUFFERED_PARTIAL")),
    "streamed": Case("STREAMED, JSON", posts(), modes("STREAMED")),
    "streamed-sse": Case("STREAMED, a streamed response", posts("/sse", STREAMED), modes("STREAMED")),
    "streamed-long": Case("STREAMED, a body of 200 KB", posts(body=LONG[:200_000]), modes("STREAMED")),
    "streamed-trailers": Case("STREAMED, HTTP/2 request trailers", sends_trailers, modes("STREAMED")),
    "streamed-get": Case("STREAMED, no body", sends(request("GET", "/v1/models")), modes("STREAMED")),
    "streamed-early": Case(
        "STREAMED, body sent without waiting for the answer to the headers",
        posts(),
        modes("STREAMED", send_body_early=True),
    ),
    "none": Case("no bodies", posts(), modes("NONE")),
    "none-grpc": Case("no bodies, response trailers", calls_grpc, modes("NONE", upstream_http2=True)),
    "request-only": Case("FULL_DUPLEX_STREAMED request, no response body", posts(), {"response_body": "NONE"}),
    "observe": Case("observability mode", posts(), modes("STREAMED", observe=True, deferred_close_s=0.5)),
}


async def record(name: str, case: Case, which: str) -> Json | None:
    """None if Envoy gave up before the server saw a stream."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(upstream.listening())
        grpc_port = await stack.enter_async_context(grpc_engine.serving())
        address = f"127.0.0.1:{grpc_port}" if case.setup.get("upstream_http2") else engine.address
        script = case.script or scripted.Picking(case.destination or address, case.early)
        picker = await stack.enter_async_context(scripted.serving(script))
        setup = Setup(picker_port=picker.port, **_reachable(case.setup, address))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        proxy = stack.enter_context(envoy.running(envoy.binary(which), setup, folder))
        seen = await case.client(Scene(proxy.port, engine))
        try:
            stream = (await picker.finished(1, timeout_s=8))[0]
        except TimeoutError:
            return None
        return {
            "envoy": envoy.version(envoy.binary(which)),
            "case": name,
            "about": case.about,
            "setup": case.setup,
            "client": seen,
            "end": stream.end,
            "messages": [_kept(entry) for entry in stream.entries],
        }


def _reachable(setup: dict[str, Any], engine: str) -> dict[str, Any]:
    """Without answers there is no destination header: an observed request goes to a static member."""
    return setup | {"destination": "override_host", "endpoints": (engine,)} if setup.get("observe") else setup


def _kept(entry: scripted.Entry) -> Json:
    return {"by": entry.by, "summary": summary(entry.wire, entry.by), **transcripts.encoded(entry.wire)}


def summary(wire: bytes, by: str) -> Json:
    """The message as JSON for a reader: header lines, bodies by their length if long."""
    message = Message.FromString(wire) if by == "envoy" else Answer.FromString(wire)
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    short: Json = {key: _readable(key, value) for key, value in fields.items()}
    return short


def _readable(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        if "key" in value:
            return f"{value['key']}: {_text(value.get('raw_value', ''))}{value.get('value', '')}"
        return {k: _readable(k, v) for k, v in value.items()}
    if isinstance(value, list):
        return [_readable("", v) for v in value]
    if key == "body":
        return _text(value) if len(value) < 200 else f"{len(base64.b64decode(value))} bytes"
    return value


def _text(b64: str) -> str:
    return base64.b64decode(b64).decode("latin1")


async def main(names: list[str]) -> None:
    for name in names or CASES:
        for which in ("oldest", "newest"):
            kept = await record(name, CASES[name], which)
            if kept is None:
                sys.stderr.write(f"{name}: the {which} Envoy opened no stream\n")
                continue
            path = transcripts.FOLDER / f"{kept['envoy']}-{name}.json"
            path.write_text(json.dumps(kept, indent=1) + "\n")
            sys.stderr.write(f"{path.name} {kept['client']} {kept['end']}\n")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
