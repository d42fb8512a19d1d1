"""One at a time: of those who have work to do, each turn of the event loop goes on with one."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Requests that come meanwhile wait for one piece of work, not for all that came together."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def mine(self) -> None:
        """Until nobody else works in this turn of the loop; in the order asked."""
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.append(mine)
            await mine
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():
                mine.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
