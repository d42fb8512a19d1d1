"""Anything a client may do to the HTTP/2 face, played against a connection, and what must hold afterwards.

`python -m tests.fuzz.http2 [libFuzzer's options]` looks for input that breaks it, guided by coverage; it needs the
package atheris, which the tests do not: they draw the same steps from hypothesis. It is no part of CI: the package
installs in seconds, but instrumenting the 8,800 functions that are loaded takes over a minute on two busy cores, longer
than the run that CI could afford.
"""

from __future__ import annotations

import logging
import struct
import sys
from collections.abc import Iterable

import hpack

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_wire import DATA, DEFAULT_WINDOW, WINDOW_UPDATE, frame
from tests.unit.http2_kit import HELLO, REQUEST, Bare, frames, message

BLOCKS = (
    hpack.Encoder().encode(REQUEST),
    hpack.Encoder().encode([*REQUEST, ("grpc-timeout", "1S"), ("content-length", "8")]),
    hpack.Encoder().encode([("x-trailer", "1")]),
    b"\x20\x3f\xe1\x1f" + hpack.Encoder().encode(REQUEST),
    b"\xbe\xbf",
    b"",
)
MESSAGES = (b"", b"one", b"later", b"fail", b"bye", b"big", b"x" * 30_000)
Step = tuple[str, int, int, int, bytes]
"""What, and with which type, flags, stream and payload; steps that need none leave them alone."""
WHATS = (
    "frame", "headers", "message", "raw", "decide", "tick", "pause", "resume", "expire", "window", "settings", "drain",
)  # fmt: skip


def answer(wire: bytes) -> list[bytes] | None:
    if wire == b"later":
        return None
    return [b"y" * 50_000] if wire == b"big" else [wire]


def wire_of(step: Step) -> bytes:
    """What a step puts on the wire."""
    what, kind, flags, stream, payload = step
    if what == "frame":
        return frame(kind, flags, stream, payload[:16_384])
    if what == "headers":
        return frame(1, flags & 5 | 4, stream | 1, BLOCKS[kind % len(BLOCKS)])
    if what == "message":
        return frame(DATA, flags & 1, stream, message(MESSAGES[kind % len(MESSAGES)])[:16_384])
    if what == "window":
        return frame(WINDOW_UPDATE, 0, stream if flags & 1 else 0, struct.pack(">L", 1 << (kind % 32)))
    if what == "settings":
        return frame(4, 0, 0, struct.pack(">HL", flags % 8, 1 << (kind % 32)))
    return payload if what == "raw" else b""


class Player:
    """A connection under attack, and an account of what it may send."""

    def __init__(self) -> None:
        self.bare = Bare(answer, streams=4, recv_bytes=40_000, waiting_bytes=60_000)
        self.may_send = DEFAULT_WINDOW
        self.bare.written()

    def play(self, steps: Iterable[Step], *, greeted: bool) -> None:
        if greeted:
            self.bare.say(HELLO)
        for step in steps:
            self._step(step)
        self._written()
        self.bare.lost()
        self.check()

    def _step(self, step: Step) -> None:
        bare, connection = self.bare, self.bare.connection
        match step[0]:
            case "decide":
                for one in [one for one in bare.calls.later if one.open]:
                    one.open = False
                    one.done([b"decided"] if step[1] & 1 else ValueError("no"))
            case "tick":
                bare.clock.now += step[1]
                upkeep.tick(connection, bare.clock.now)
            case "pause":
                connection.streams.pause()
            case "resume":
                connection.streams.resume()
            case "expire":
                connection.streams.expire(bare.clock.now + step[1])
            case "drain":
                (upkeep.drain, upkeep.drained, upkeep.cut)[step[1] % 3](connection)
            case _:
                self._hear(wire_of(step))
        self._written()

    def _hear(self, wire: bytes) -> None:
        # An upper bound: updates that a broken connection never read count too.
        self.may_send += sum(
            int.from_bytes(wire[at + 9 : at + 13], "big") & 0x7FFFFFFF
            for at in range(len(wire) - 12)
            if wire[at + 3] == WINDOW_UPDATE
        )
        self.bare.connection.receive(wire)

    def _written(self) -> None:
        found = frames(self.bare.written())
        self.may_send -= sum(len(payload) for kind, _, _, payload in found if kind == DATA)
        assert self.may_send >= 0, "more DATA than the client takes"
        assert all(len(payload) <= 16_384 or kind == DATA for kind, _, _, payload in found)

    def check(self) -> None:
        bare = self.bare
        assert bare.calls.open == 0, "a call was never closed"
        assert bare.budget.held == 0, "bytes were never given back"
        assert not bare.streams.open
        assert not bare.streams.blocked
        assert not bare.streams.deadlines


def main() -> None:
    import atheris

    def one(given: bytes) -> None:
        taken = atheris.FuzzedDataProvider(given)
        steps: list[Step] = []
        greeted = taken.ConsumeBool()
        while taken.remaining_bytes() and len(steps) < 200:
            what = WHATS[taken.ConsumeIntInRange(0, len(WHATS) - 1)]
            kind, flags = taken.ConsumeIntInRange(0, 255), taken.ConsumeIntInRange(0, 255)
            stream = taken.ConsumeIntInRange(0, 12)
            payload = taken.ConsumeBytes(taken.ConsumeIntInRange(0, 60)) if what in {"frame", "raw"} else b""
            steps.append((what, kind % 12 if what == "frame" else kind, flags, stream, payload))
        Player().play(steps, greeted=greeted)

    logging.disable(logging.CRITICAL)
    atheris.instrument_all()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
