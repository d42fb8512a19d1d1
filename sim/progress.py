"""How far something has come: on a terminal a line that is written over, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 99
OVERWRITTEN_EACH_S = 0.2
PLAIN_EACH_S = 10.0


class Progress:
    """Writes to `stream`."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._live = stream.isatty()
        self._next_at = 0.0 if self._live else clock() + PLAIN_EACH_S

    def stage(self, text: str) -> None:
        """Something new begins: always told."""
        self._write(text)

    def step(self, text: str) -> None:
        """It goes on: told if the last line is old enough."""
        if self._clock() >= self._next_at:
            self._write(text)

    def clear(self) -> None:
        """Leave an empty line to whoever writes next."""
        if self._live:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def _write(self, text: str) -> None:
        self._next_at = self._clock() + (OVERWRITTEN_EACH_S if self._live else PLAIN_EACH_S)
        self._stream.write(f"\r{text[:WIDTH]}\033[K" if self._live else f"{text}\n")
        self._stream.flush()
