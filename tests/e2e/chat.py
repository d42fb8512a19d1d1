"""What clients of an OpenAI API send, over the raw client."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from .client import Reply, fetch, request

JSON_TYPE = "content-type: application/json"


def body(prompt: str = "Once upon a time", **more: Any) -> bytes:
    return json.dumps({"model": "tiny", "prompt": prompt, "max_tokens": 4, **more}).encode()


def completion(prompt: str = "Once upon a time", *headers: str, **more: Any) -> bytes:
    """A POST to /v1/completions; `more` are fields of its body."""
    return request("POST", "/v1/completions", JSON_TYPE, *headers, body=body(prompt, **more))


def ask(port: int, *parts: bytes | float, timeout_s: float = 20.0) -> Reply:
    return asyncio.run(fetch(port, *parts, timeout_s=timeout_s))


def ask_all(port: int, requests: list[bytes], timeout_s: float = 60.0) -> list[Reply]:
    """All at once."""

    async def every() -> list[Reply]:
        return await asyncio.gather(*(fetch(port, one, timeout_s=timeout_s) for one in requests))

    return asyncio.run(every())


def events(reply: Reply) -> list[bytes]:
    """The data of a server-sent stream, `[DONE]` included."""
    return [line.removeprefix(b"data: ") for line in reply.body.split(b"\n") if line.startswith(b"data: ")]
