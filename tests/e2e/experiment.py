"""A request through a real Envoy whose ext_proc server follows a script."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import envoy, scripted, upstream
from .bootstrap import Setup
from .client import Reply, fetch, request
from .scripted import Script, Stream

BODY = b'{"model": "tiny", "prompt": "Once upon a time"}'
POST = request("POST", "/v1/completions", "content-type: application/json", body=BODY)
HANGS = Reply(0, "hangs", b"")


@dataclass(frozen=True)
class Scene:
    """What a client needs."""

    port: int
    engine: upstream.Upstream


@dataclass(frozen=True)
class Seen:
    """What each side saw."""

    reply: Reply
    """The last one; HANGS if nothing came in time."""
    streams: list[Stream]
    engine: upstream.Upstream
    other: upstream.Upstream
    """A second engine, known to the proxy where it balances by override_host."""
    counters: dict[str, int]

    @property
    def stream(self) -> Stream:
        return self.streams[0]


Client = Callable[[Scene], Awaitable[int]]


def experiment(
    which: str,
    script_for: Callable[[str], Script],
    *parts: bytes | float,
    client: Client | None = None,
    times: int = 1,
    timeout_s: float = 10.0,
    **setup: Any,  # fields of Setup
) -> Seen:
    """Send `parts` (a POST by default) or let `client` act, `times` times; `script_for` gets the engine's address."""

    async def sends(scene: Scene) -> Reply:
        if client is None:
            return await fetch(scene.port, *(parts or (POST,)), timeout_s=timeout_s)
        return Reply(await asyncio.wait_for(client(scene), timeout_s), "", b"")

    return asyncio.run(_experiment(which, script_for, sends, times, setup))


async def _experiment(
    which: str,
    script_for: Callable[[str], Script],
    sends: Callable[[Scene], Awaitable[Reply]],
    times: int,
    setup: dict[str, Any],
) -> Seen:
    async with (
        upstream.listening() as engine,
        upstream.listening() as other,
        scripted.serving(script_for(engine.address)) as picker,
    ):
        asked = Setup(picker_port=picker.port, endpoints=(other.address, engine.address), **setup)
        with (
            tempfile.TemporaryDirectory() as folder,
            envoy.running(envoy.binary(which), asked, Path(folder)) as proxy,
        ):
            try:
                for _ in range(times):
                    reply = await sends(Scene(proxy.port, engine))
                await picker.finished(len(picker.streams))
            except TimeoutError:
                reply = HANGS
            return Seen(reply, picker.streams, engine, other, proxy.ext_proc())
