"""The engine behind HTTP: `python -m sim.server --model tiny --port 8101`. Writes nothing to disk."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvloop

from sim.listener import Listener
from sim.settings import ServerSettings, parse
from sim.site import Site


@asynccontextmanager
async def serving(settings: ServerSettings) -> AsyncIterator[Sequence[str]]:
    """The engines of `settings`, running until the block ends; their addresses as host:port."""
    ports = [settings.port + rank if settings.port else 0 for rank in range(settings.engines)]
    listeners = [Listener(settings.host, port) for port in ports]
    async with asyncio.TaskGroup() as group:
        sites = [Site(settings, listener, os.environ).app() for listener in listeners]
        tasks = [
            group.create_task(listener.run(site), name=f"engine {rank}")
            for rank, (listener, site) in enumerate(zip(listeners, sites, strict=True))
        ]
        for listener in listeners:
            await listener.open.wait()
        yield [f"{settings.host}:{listener.port}" for listener in listeners]
        for task in tasks:
            task.cancel()


async def _serve(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as addresses:
        for address in addresses:
            print(f"serving {settings.names[0]} on http://{address}", flush=True)
        await stop.wait()


def main(argv: Sequence[str]) -> int:
    status = 0
    try:
        uvloop.run(_serve(parse(argv)))
    except* OSError as failed:
        print(f"cannot listen: {failed.exceptions[0]}; choose another --host or --port", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
