"""vLLM's gRPC face in its smallest form: /vllm.grpc.engine.VllmEngine/Generate, two chunks and the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import grpc
import grpc.aio

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"  # generic for type checkers alone
SERVICE = "vllm.grpc.engine.VllmEngine"
REQUEST = b"\x0a\x02r1" + b"\x1a\x05hello"
"""GenerateRequest{request_id: "r1", text: "hello"}."""
CHUNK = b"\x0a\x09" + b"\x0a\x01\x07" + b"\x10\x05\x18\x01\x20\x04"
"""GenerateResponse{chunk{token_ids: [7], prompt_tokens: 5, completion_tokens: 1, cached_tokens: 4}}."""
COMPLETE = b"\x12\x10" + b"\x0a\x02\x07\x08" + b"\x12\x04stop" + b"\x18\x05\x20\x02\x28\x04"
"""GenerateResponse{complete{output_ids: [7, 8], finish_reason: "stop", 5 prompt, 2 completion, 4 cached tokens}}."""


async def _generate(request: bytes, context: Context) -> AsyncIterator[bytes]:
    yield CHUNK
    yield COMPLETE
    context.set_trailing_metadata((("x-end", "yes"),))


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(_generate)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Generate": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


async def call(port: int) -> list[str]:
    """Messages of one Generate through `port`, in hex."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        generate: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/Generate")
        return [message.hex() async for message in generate(REQUEST, timeout=10)]
