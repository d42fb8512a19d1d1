"""A file that may change while it is followed: read whole, compared by content."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from epp.feeds import FeedError
from epp.feeds.entries import MAX_FILE_BYTES

POLL_S = 1.0
"""Between two looks at the file. Its content is compared: inotify loses sight of swapped symlinks, and times do not
tell two quick writes apart."""
SETTLE_S = 0.2
"""How long a changed file must stay as it is before it counts: an editor may be half-way through."""


class WatchedFile:
    """`reload` gets the new content, once it was found the same twice; FeedError from it is told to `complain`, as is a
    file that can't be read: once, not at each look."""

    def __init__(self, path: str, reload: Callable[[bytes], Awaitable[None]], complain: Callable[[str], None]) -> None:
        self.path = path
        self._reload = reload
        self._complain = complain
        self._seen = b""
        self._unsettled: bytes | None = None
        self._complaint = ""

    async def first(self) -> bytes:
        """What it holds at the start. Raises FeedError."""
        self._seen = await asyncio.to_thread(_content, self.path)
        return self._seen

    async def look(self) -> bool:
        """One look. False while it is not known yet whether the file stays as it is."""
        try:
            content = await asyncio.to_thread(_content, self.path)
        except FeedError as error:
            self._tell(str(error))
            return True
        if content == self._seen:
            self._unsettled, self._complaint = None, ""
            return True
        if content != self._unsettled:
            self._unsettled = content
            return False
        self._seen, self._unsettled = content, None
        try:
            await self._reload(content)
        except FeedError as error:
            self._tell(str(error))
        return True

    async def follow(self, poll_s: float, settle_s: float) -> None:
        """Until cancelled."""
        settled = True
        while True:
            await asyncio.sleep(poll_s if settled else settle_s)
            settled = await self.look()

    def _tell(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            self._complain(text)


def _without_waiting(path: str, flags: int) -> int:
    """A pipe without a writer would keep its reader, and the end of the process, waiting for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            return file.read(MAX_FILE_BYTES + 1) or b""
    except OSError as error:
        raise FeedError(f"can't be read: {error.strerror}") from None
