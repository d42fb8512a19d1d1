"""How many ext_proc streams are open, for those who count and for the drain that waits until none is."""

from __future__ import annotations

import asyncio
from typing import final

from epp.extproc.service import StreamWatch


@final
class OpenStreams:
    """Counts streams and passes on what it hears."""

    __slots__ = ("_none", "_watch", "count")

    def __init__(self, watch: StreamWatch) -> None:
        self.count = 0
        self._watch = watch
        self._none = asyncio.Event()
        self._none.set()

    def stream_opened(self) -> None:
        if not self.count:
            self._none.clear()
        self.count += 1
        self._watch.stream_opened()

    def stream_closed(self, seconds: float, code: str) -> None:
        self.count -= 1
        if not self.count:
            self._none.set()
        self._watch.stream_closed(seconds, code)

    async def quiet(self, quiet_s: float) -> None:
        """Until no stream has been open for `quiet_s`."""
        while True:
            await self._none.wait()
            await asyncio.sleep(quiet_s)
            if not self.count:
                return
