"""A stream of bytes as lines, however it is cut into pieces."""

from __future__ import annotations

from typing import Final

MAX_LINE_BYTES: Final = 1 << 20
"""A longer line is passed on in parts and not read: no event worth reading comes near, and memory stays bounded."""

Cut = tuple[bytes, bool]
"""Bytes and whether they are one whole line, its newline included (the last line may have none)."""


class Lines:
    """Holds back the incomplete line only. What it gives, joined, is what it was fed."""

    __slots__ = ("_held", "_overlong")

    def __init__(self) -> None:
        self._held = bytearray()
        self._overlong = False

    @property
    def empty(self) -> bool:
        """Whether what was fed so far ended with a line's end."""
        return not self._held and not self._overlong

    def feed(self, piece: bytes) -> list[Cut]:
        """The lines that end in this piece, and what is too long to be held."""
        *complete, rest = piece.split(b"\n")
        cuts = [self._line(text) for text in complete]
        if rest:
            cuts += self._hold(rest)
        return cuts

    def end(self) -> list[Cut]:
        """The last line, if the stream did not end with a newline."""
        held, self._held = bytes(self._held), bytearray()
        return [(held, True)] if held else []

    def _line(self, text: bytes) -> Cut:
        if self._held:
            text = bytes(self._held) + text
            self._held.clear()
        whole = not self._overlong and len(text) <= MAX_LINE_BYTES
        self._overlong = False
        return text + b"\n", whole

    def _hold(self, rest: bytes) -> list[Cut]:
        self._held += rest
        if not self._overlong and len(self._held) <= MAX_LINE_BYTES:
            return []
        self._overlong = True
        part = bytes(self._held)
        self._held.clear()
        return [(part, False)]


def event_text(line: bytes) -> bytes | None:
    """What a `data:` line of a server-sent event carries; None for other lines."""
    return line[5:].strip() if line.startswith(b"data:") else None
