"""A listening port that can be made to refuse connections for a while."""

from __future__ import annotations

import asyncio

from aiohttp import web

# Longer than any proxy keeps an idle connection, so that it is never ours that closes first.
_KEEPALIVE_S = 3600.0
_SHUTDOWN_S = 1.0


class Listener:
    """Serves one application on one port until cancelled."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        """The real one, once open; 0 before if any free one was asked for."""
        self.open = asyncio.Event()
        self._refusals: asyncio.Queue[float] = asyncio.Queue()

    def refuse(self, for_s: float) -> None:
        """Close the port and every connection, and open it again after `for_s` seconds."""
        self._refusals.put_nowait(for_s)

    async def run(self, app: web.Application) -> None:
        """OSError if the port is taken."""
        runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=_KEEPALIVE_S,
            shutdown_timeout=_SHUTDOWN_S,
        )
        await runner.setup()
        try:
            while True:
                await self._accept_until_refusal(runner)
        finally:
            await runner.cleanup()

    async def _accept_until_refusal(self, runner: web.AppRunner) -> None:
        site = web.TCPSite(runner, self.host, self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        self.open.set()
        for_s = await self._refusals.get()
        await site.stop()
        for connection in runner.server.connections if runner.server else ():
            connection.force_close()
        await asyncio.sleep(for_s)
