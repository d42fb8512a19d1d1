"""A simulated engine behind HTTP for tests, and how to ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import yarl
from prometheus_client.parser import text_string_to_metric_families

from sim.server import serving
from sim.settings import ServerSettings
from sim.types import EngineSettings, Speed

FIXTURES = Path(__file__).parent / "fixtures"
FAST = Speed(inter_token_s=0.001, prefill_overhead_s=0.001, prefill_s_per_token=0.0)
TINY = ServerSettings(model="tiny", port=0, engine=EngineSettings(speed=FAST))
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "tell me of the sea, please, and at length"}]}

Session = aiohttp.ClientSession


def with_server(settings: ServerSettings, use: Callable[[Session], Awaitable[None]]) -> None:
    """Run `use` with a client of a server on a free port."""

    async def run() -> None:
        async with asyncio.timeout(20), serving(settings) as [address], Session(f"http://{address}") as client:
            await use(client)

    asyncio.run(run())


async def post(client: Session, path: str, body: object, **headers: str) -> tuple[int, Mapping, Mapping]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.post(path, json=body, headers=named) as response:
        return response.status, await response.json(), response.headers


async def origin(client: Session) -> yarl.URL:
    """Where the server is."""
    async with client.get("/health") as response:
        return response.url.origin()


async def metrics(client: Session) -> dict[str, float]:
    """Samples without labels other than engine and model_name, by name."""
    async with client.get("/metrics") as response:
        families = list(text_string_to_metric_families(await response.text()))
    return {s.name: s.value for f in families for s in f.samples if set(s.labels) == {"engine", "model_name"}}


async def stream(client: Session, path: str, body: Mapping) -> list[str]:
    """The server-sent events of a streamed request."""
    async with client.post(path, json={**body, "stream": True}) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return (await response.text()).removesuffix("\n\n").split("\n\n")


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so; the server's own time limit ends a vain wait."""
    while not await true():
        pass


def endless(model: str = "tiny") -> Mapping:
    return {"model": model, "prompt": "a", "max_tokens": 900, "stream": True}
