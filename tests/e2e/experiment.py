"""One request through a real Envoy whose ext_proc server follows a script."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import client, envoy, scripted, upstream
from .bootstrap import Setup
from .client import Reply, request
from .scripted import Script, Stream

BODY = b'{"model": "tiny", "prompt": "Once upon a time"}'
POST = request("POST", "/v1/completions", "content-type: application/json", body=BODY)
HANGS = Reply(0, "hangs", b"")


@dataclass(frozen=True)
class Seen:
    """What each side saw."""

    reply: Reply
    """HANGS if nothing came in time."""
    streams: list[Stream]
    engine: upstream.Upstream
    counters: dict[str, int]
    log: str

    @property
    def stream(self) -> Stream:
        return self.streams[0]


def experiment(
    which: str, script_for: Callable[[str], Script], *parts: bytes | float, timeout_s: float = 10.0, **setup: Any
) -> Seen:
    """`script_for` is given the engine's address; `parts` are what the client sends, a POST by default."""
    return asyncio.run(_experiment(which, script_for, parts or (POST,), timeout_s, setup))


async def _experiment(
    which: str,
    script_for: Callable[[str], Script],
    parts: tuple[bytes | float, ...],
    timeout_s: float,
    setup: dict[str, Any],
) -> Seen:
    async with upstream.listening() as engine, scripted.serving(script_for(engine.address)) as picker:
        with tempfile.TemporaryDirectory() as folder:
            asked = Setup(picker_port=picker.port, **setup)
            with envoy.running(envoy.binary(which), asked, Path(folder)) as proxy:
                try:
                    reply = await client.fetch(proxy.port, *parts, timeout_s=timeout_s)
                    await picker.finished(len(picker.streams))
                except TimeoutError:
                    reply = HANGS
                return Seen(reply, picker.streams, engine, proxy.ext_proc(), proxy.log.read_text())
