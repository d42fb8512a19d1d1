"""One end of the socket between the parent and a child: small messages, each of which may carry file descriptors."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence

import msgspec
from msgspec import Struct

MOST_BYTES = 4_096
MOST_FDS = 4


class Start(Struct, tag=1, array_like=True):
    """To a child that has come up: who it is. An edge gets the memfd of SharedCounts with it."""

    number: int
    """Of an edge, from 0; of a decider how often it was started before."""
    edges: int
    port: int
    """Where the parent listens."""


class Join(Struct, tag=2, array_like=True):
    """A decider and this edge meet on the socket that comes with it. Told to both."""

    edge: int
    restarts: int
    """How often the edge was started before."""


class Serve(Struct, tag=3, array_like=True):
    """To an edge: the client on the socket that comes with it is yours."""


class Standing(Struct, tag=4, array_like=True):
    """From an edge: it serves; so many clients it got so far, has now, and streams open."""

    got: int
    clients: int
    streams: int


class Up(Struct, tag=5, array_like=True):
    """From the decider: what it needs is there, edges may be met."""


class Leaving(Struct, tag=6, array_like=True):
    """From the decider: it drained, no client is to be taken any more."""


Message = Start | Join | Serve | Standing | Up | Leaving
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends; a message is a packet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    return ours, theirs


class Control:
    """Reads on the loop; `hear` gets each message with its descriptors, which are its own from then on."""

    def __init__(
        self, end: socket.socket, hear: Callable[[Message, list[int]], None], lost: Callable[[], None]
    ) -> None:
        end.setblocking(False)
        self._end, self._hear, self._lost = end, hear, lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end.fileno(), self._read)

    def say(self, message: Message, fds: Sequence[int] = ()) -> bool:
        """Whether it went: False where the other side is gone or does not read."""
        try:
            if fds:
                socket.send_fds(self._end, [_encode(message)], fds)
            else:
                self._end.send(_encode(message))
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end.fileno())
            self._end.close()

    def _read(self) -> None:
        while self._end.fileno() >= 0:
            try:
                wire, fds, _, _ = socket.recv_fds(self._end, MOST_BYTES, MOST_FDS)
            except BlockingIOError:
                return
            except OSError:
                wire, fds = b"", []
            if not wire:
                self.close()
                self._lost()
                return
            for fd in fds:
                os.set_inheritable(fd, False)
            self._hear(_decode(wire), list(fds))
