"""One end of the socket between an edge and the decider: what one turn of the loop has to say leaves in one write."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

from epp.workers.messages import Message, apart, array_head, encode

log = logging.getLogger("epp.workers")
LENGTH = struct.Struct("<I")
MOST_UNREAD_BYTES = 1 << 27
"""What waits for the other side to read it, beyond which nothing should be asked of it. Prompts are in it."""
Heard = TypeVar("Heard")


class Link(asyncio.Protocol, Generic[Heard]):
    """Frames are a length and an array of messages. `lost` hears, once, that the other side is gone."""

    def __init__(
        self,
        decode: Callable[[bytes], list[Heard]],
        hear: Callable[[Heard], None],
        lost: Callable[[], None],
        begun: Callable[[Link[Heard]], None] | None = None,
    ) -> None:
        self._decode, self._hear, self._lost, self._begun = decode, hear, lost, begun
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._said: list[bytes] = []
        self._parts: list[bytes] = []
        self._have = 0
        self.full = False
        """The other side does not read what it is told: it was stopped, or hangs."""

    @property
    def alive(self) -> bool:
        return self._transport is not None

    def say(self, message: Message) -> None:
        """It leaves at the end of this turn. Nothing happens once the other side is gone.

        What can't be encoded raises here, where it is known whose message it is: others of this turn are not lost.
        """
        if self._transport is None:
            return
        wire = encode(message)
        if not self._said:
            self._loop.call_soon(self.flush)
        self._said.append(wire)

    def flush(self) -> None:
        if self._transport is not None and self._said:
            frame = array_head(len(self._said)) + b"".join(self._said)
            self._transport.write(LENGTH.pack(len(frame)) + frame)
        self._said.clear()

    def close(self) -> None:
        """What was said still leaves."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    # ---- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=MOST_UNREAD_BYTES)
        if self._begun is not None:
            self._begun(self)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False

    def data_received(self, wire: bytes) -> None:
        self._parts.append(wire)
        self._have += len(wire)
        if self._have < LENGTH.size or self._have < LENGTH.size + self._expected():
            return
        wire = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        at = 0
        while len(wire) - at >= LENGTH.size:
            end = at + LENGTH.size + LENGTH.unpack_from(wire, at)[0]
            if end > len(wire):
                break
            self._take(wire[at + LENGTH.size : end])
            at = end
        self._parts = [wire[at:]] if at < len(wire) else []
        self._have = len(wire) - at

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._said.clear()
        self._lost()

    def _expected(self) -> int:
        """Of the first frame; its length may have come in pieces."""
        if len(self._parts[0]) < LENGTH.size:
            self._parts = [b"".join(self._parts)]
        length: int = LENGTH.unpack_from(self._parts[0])[0]
        return length

    def _take(self, frame: bytes) -> None:
        for message in self._messages(frame):
            try:
                self._hear(message)
            except Exception:
                # One message must not take the others with it.
                log.exception("internal error")

    def _messages(self, frame: bytes) -> list[Heard]:
        try:
            return self._decode(frame)
        except msgspec.ValidationError:
            # A plug-in may have put in it what is not of the type it says: the others are read all the same.
            return [message for wire in apart(frame) for message in self._alone(wire)]

    def _alone(self, wire: bytes) -> list[Heard]:
        try:
            return self._decode(array_head(1) + wire)
        except msgspec.ValidationError:
            log.exception("internal error")
            return []


async def joined(
    end: socket.socket,
    decode: Callable[[bytes], list[Heard]],
    hear: Callable[[Heard], None],
    lost: Callable[[], None],
    begun: Callable[[Link[Heard]], None] | None = None,
) -> Link[Heard]:
    """The link over one end of a socket pair. `begun` is called before anything is heard, which may be before this
    returns.
    """
    loop = asyncio.get_running_loop()
    end.setblocking(False)
    _, link = await loop.create_unix_connection(lambda: Link(decode, hear, lost, begun), sock=end)
    return link
