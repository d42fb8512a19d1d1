"""What tests of the HTTP/2 face need: a connection without a socket, calls that do as told, h2 as the client."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamReset, TrailersReceived
from h2.settings import SettingCodes

from epp.extproc.http2_calls import Replies
from epp.extproc.http2_codes import Error, Failed, Status
from epp.extproc.http2_connection import Connection
from epp.extproc.http2_limits import Budget, Limits
from epp.extproc.http2_wire import PREFACE, SETTINGS, frame

ECHO = "/tests.Echo/Echo"
REQUEST = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", ECHO),
    (":authority", "test"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
HELLO = PREFACE + frame(SETTINGS, 0, 0)


def message(wire: bytes, *, compressed: int = 0) -> bytes:
    return struct.pack(">BL", compressed, len(wire)) + wire


@dataclass
class Later:
    """A reply that is decided when the test says so."""

    done: Callable[[Replies | BaseException], None]
    open: bool = True
    cancelled: bool = False

    def __await__(self) -> Any:  # never awaited: the fake loop calls `done`
        raise NotImplementedError

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Calls:
    """Every call there was. `answer` makes the replies to a message; None = a reply that is decided later."""

    answer: Callable[[bytes], Replies | None] = lambda wire: [wire]
    calls: list[EchoCall] = field(default_factory=list)
    later: list[Later] = field(default_factory=list)

    def __call__(self) -> EchoCall:
        self.calls.append(EchoCall(self))
        return self.calls[-1]

    def spawn(
        self, replies: Awaitable[Replies], done: Callable[[Replies | BaseException], None]
    ) -> Callable[[], object]:
        self.later.append(Later(done))
        return self.later[-1].cancel

    @property
    def open(self) -> int:
        return sum(call.status is None for call in self.calls)

    @property
    def got(self) -> list[bytes]:
        return [wire for call in self.calls for wire in call.got]


class EchoCall:
    """Sends back what it gets; `bye` ends it, `fail` fails it, `crash` is a bug."""

    def __init__(self, owner: Calls) -> None:
        self._owner = owner
        self.got: list[bytes] = []
        self.sent_count = 0
        self.over = False
        self.status: Status | None = None
        self.push: Callable[[Replies], None] = lambda replies: None

    def receive(self, wire: bytes) -> Replies | Awaitable[Replies]:
        assert self.status is None, "a message for a call that is closed"
        self.got.append(wire)
        if wire == b"fail":
            raise Failed(Status.UNAVAILABLE, "as told: 100 % 'ü'\n")
        if wire == b"crash":
            raise ZeroDivisionError
        self.over = wire == b"bye"
        replies = self._owner.answer(wire)
        return Later(lambda _: None) if replies is None else replies

    def ended(self) -> Replies:
        return []

    def sent(self) -> None:
        self.sent_count += 1

    def attach(self, push: Callable[[Replies], None]) -> None:
        self.push = push

    def close(self, status: Status) -> None:
        assert self.status is None, "closed twice"
        self.status = status


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Bare:
    """A connection fed with raw bytes."""

    def __init__(
        self,
        answer: Callable[[bytes], Replies | None] = lambda wire: [wire],
        *,
        recv_bytes: int = 1 << 24,
        send_bytes: int = 1 << 24,
        streams: int = 100,
        waiting_bytes: int = 1 << 26,
    ) -> None:
        self.calls, self.clock, self.budget = Calls(answer), Clock(), Budget(waiting_bytes)
        limits = Limits(recv_bytes, send_bytes, streams)
        self.connection = Connection({ECHO: self.calls}, limits, self.budget, self.calls.spawn, self.clock)

    @property
    def streams(self) -> Any:
        return self.connection.streams

    def written(self) -> bytes:
        """What goes to the socket, turn by turn, until nothing is left."""
        wire = b""
        out = self.connection.streams.out
        while out:
            wire += b"".join(out)
            out.clear()
            self.connection.streams.wrote()
        return wire

    def say(self, wire: bytes) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, stream, payload) of each frame that comes back."""
        self.connection.receive(wire)
        return frames(self.written())

    def lost(self) -> None:
        """The socket closes; decisions under way end as cancelled ones do."""
        self.connection.streams.close()
        for one in self.calls.later:
            if one.open and one.cancelled:
                one.open = False
                one.done(RuntimeError("cancelled"))


def frames(wire: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    while wire:
        head, flags, stream = struct.unpack_from(">LBL", wire)
        end = 9 + (head >> 8)
        assert len(wire) >= end, "a frame is cut short"
        found.append((head & 255, flags, stream, wire[9:end]))
        wire = wire[end:]
    return found


def goaway_code(found: list[tuple[int, int, int, bytes]]) -> Error | None:
    """The code of the last GOAWAY."""
    codes = [Error(struct.unpack(">LL", payload[:8])[1]) for kind, _, _, payload in found if kind == 7]
    return codes[-1] if codes else None


def reset_codes(found: list[tuple[int, int, int, bytes]]) -> dict[int, Error]:
    return {stream: Error(int.from_bytes(payload, "big")) for kind, _, stream, payload in found if kind == 3}


class Client(Bare):
    """The package h2 at the other end. `events` are all it has seen."""

    def __init__(self, *args: Any, settings: dict[SettingCodes, int] | None = None, **more: Any) -> None:
        super().__init__(*args, **more)
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.events: list[Any] = []
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.exchange()

    def exchange(self) -> None:
        """Both ways until nobody has anything to say."""
        while True:
            sent = self.h2.data_to_send()
            if sent:
                self.connection.receive(sent)
            back = self.written()
            if back:
                self.events += self.h2.receive_data(back)
            if not sent and not back:
                return

    def open(self, *more: tuple[str, str], end: bool = False, path: str = ECHO) -> int:
        number = self.h2.get_next_available_stream_id()
        fields = [(name, path if name == ":path" else value) for name, value in REQUEST]
        self.h2.send_headers(number, [*fields, *more], end_stream=end)
        self.exchange()
        return number

    def send(self, number: int, *wires: bytes, end: bool = False) -> None:
        """Messages, cut as frames and windows want it."""
        self.send_raw(number, b"".join(map(message, wires)), end=end)

    def send_raw(self, number: int, wire: bytes, *, end: bool = False) -> None:
        while wire:
            size = min(len(wire), self.h2.max_outbound_frame_size, self.h2.local_flow_control_window(number))
            assert size > 0, "the client's window is shut"
            self.h2.send_data(number, wire[:size])
            wire = wire[size:]
            self.exchange()
        if end:
            self.h2.end_stream(number)
        self.exchange()

    def body(self, number: int) -> bytes:
        return b"".join(e.data for e in self.events if isinstance(e, DataReceived) and e.stream_id == number)

    def got(self, number: int) -> list[bytes]:
        """The messages that came back."""
        wire, found = self.body(number), []
        while wire:
            compressed, length = struct.unpack_from(">BL", wire)
            assert compressed == 0
            assert len(wire) >= 5 + length
            found.append(wire[5 : 5 + length])
            wire = wire[5 + length :]
        return found

    def ending(self, number: int) -> dict[str, str]:
        """The fields of the response's last header block."""
        kinds = (ResponseReceived, TrailersReceived)
        return dict([e for e in self.events if isinstance(e, kinds) and e.stream_id == number][-1].headers)

    def status(self, number: int) -> int:
        return int(self.ending(number)["grpc-status"])

    def resets(self) -> dict[int, int]:
        return {e.stream_id: int(e.error_code) for e in self.events if isinstance(e, StreamReset)}
