"""gRPC's length-prefixed messages: a flag (1 = compressed), four bytes of big-endian length, the message."""

from __future__ import annotations

import struct

PREFIX = struct.Struct(">BI")
MAX_MESSAGE_BYTES = 8 << 20
"""A longer message of a response is skipped instead of being held."""


def first_message(body: bytes) -> bytes | None:
    """The first message of a complete body; None if it is compressed or cut short."""
    if len(body) < PREFIX.size:
        return None
    compressed, size = PREFIX.unpack_from(body)
    message = body[PREFIX.size : PREFIX.size + size]
    return message if not compressed and len(message) == size else None


class Frames:
    """Cuts a response into messages whatever pieces it comes in; compressed ones are left out."""

    __slots__ = ("_held", "_skip")

    def __init__(self) -> None:
        self._held = bytearray()
        self._skip = 0

    def feed(self, piece: bytes) -> list[bytes]:
        found: list[bytes] = []
        held = self._held
        held += piece
        while True:
            dropped = min(self._skip, len(held))
            del held[:dropped]
            self._skip -= dropped
            if len(held) < PREFIX.size:
                return found
            compressed, size = PREFIX.unpack_from(held)
            end = PREFIX.size + size
            if compressed or size > MAX_MESSAGE_BYTES:
                self._skip = end
            elif len(held) < end:
                return found
            else:
                found.append(bytes(held[PREFIX.size : end]))
                del held[:end]
