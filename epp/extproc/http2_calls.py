"""The gRPC calls that are served: ext_proc's one method, and health."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from epp.extproc.dialogue import Dialogue
from epp.extproc.faults import ProtocolError
from epp.extproc.health import PREFIX, HealthService
from epp.extproc.http2_codes import Failed, Status
from epp.extproc.service import METHOD, StreamWatch

log = logging.getLogger("epp.extproc")
Replies = list[bytes]


class Call(Protocol):
    """One call, fed by a stream: messages in, messages out."""

    def receive(self, wire: bytes) -> Replies | Awaitable[Replies]:
        """What to send now. Raises Failed or what the call's own code raises."""

    def ended(self) -> Replies:
        """The client has said all; the call is over once the result is sent. Raises Failed."""

    def sent(self) -> None:
        """What was returned has gone out."""

    @property
    def over(self) -> bool:
        """True once nothing more will be said."""

    def attach(self, push: Callable[[Replies], None]) -> None:
        """The stream is there: `push` says on it what was not asked for."""

    def close(self, status: Status) -> None:
        """The stream is gone. Called once."""


# Members of an enum are dear to look up, and each stream ends in one of these ways.
DONE: Final = Status.OK
LEFT: Final = Status.CANCELLED
ENDED_WELL: Final = (Status.OK, Status.CANCELLED, Status.DEADLINE_EXCEEDED, Status.UNAVAILABLE)
IN_GO: Final = [Status(code).in_go if code in list(Status) else "" for code in range(max(Status) + 1)]
"""By code; told for every stream."""
CAUSES: Final = ["client-disconnect" if code in ENDED_WELL else "error" for code in range(max(Status) + 1)]


@final
class Process:
    """ExternalProcessor.Process: a dialogue, its length and its end told to the watch.

    Who drives it may ask the dialogue itself, so that a piece of a response passes through nothing else.
    """

    __slots__ = ("_began", "_clock", "_watch", "dialogue")

    def __init__(self, dialogue: Dialogue, watch: StreamWatch, clock: Callable[[], float]) -> None:
        self.dialogue = dialogue
        self._watch = watch
        self._clock = clock
        self._began = clock()
        watch.stream_opened()

    def receive(self, wire: bytes) -> Replies | Awaitable[Replies]:
        return self.dialogue.receive(wire)

    def sent(self) -> None:
        self.dialogue.sent()

    def ended(self) -> Replies:
        return []

    def attach(self, push: Callable[[Replies], None]) -> None:
        self.dialogue.push = push

    @property
    def over(self) -> bool:
        return self.dialogue.over

    def close(self, status: Status) -> None:
        self._watch.stream_closed(self._clock() - self._began, IN_GO[status])
        self.dialogue.close(CAUSES[status])


@final
class Unary:
    """A call with one message each way."""

    __slots__ = ("_answer", "_asked")

    over = False

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._asked: bytes | None = None

    def receive(self, wire: bytes) -> Replies:
        if self._asked is not None:
            raise Failed(Status.INTERNAL, "this method takes one message")
        self._asked = wire
        return []

    def ended(self) -> Replies:
        if self._asked is None:
            raise Failed(Status.INTERNAL, "this method takes one message, and none came")
        try:
            return [self._answer(self._asked)]
        except DecodeError as error:
            raise Failed(Status.INTERNAL, f"the message can't be read: {error}") from None

    def sent(self) -> None:
        pass

    def attach(self, push: Callable[[Replies], None]) -> None:
        pass

    def close(self, status: Status) -> None:
        pass


Calls = dict[str, Callable[[], Call]]
"""Method's path → makes one call of it."""


def process(open_dialogue: Callable[[], Dialogue], watch: StreamWatch, clock: Callable[[], float]) -> Calls:
    return {METHOD: lambda: Process(open_dialogue(), watch, clock)}


def health(service: HealthService) -> Calls:
    """Watch is not offered: it answers UNIMPLEMENTED, as upstream's does."""

    def check(wire: bytes) -> bytes:
        asked = health_pb2.HealthCheckRequest.FromString(wire)
        return _serialized(health_pb2.HealthCheckResponse(status=service.status(asked.service)))

    def listed(wire: bytes) -> bytes:
        health_pb2.HealthListRequest.FromString(wire)
        told = {name: health_pb2.HealthCheckResponse(status=service.status(name)) for name in service.listed}
        return _serialized(health_pb2.HealthListResponse(statuses=told))

    return {f"{PREFIX}Check": lambda: Unary(check), f"{PREFIX}List": lambda: Unary(listed)}


def _serialized(message: health_pb2.HealthCheckResponse | health_pb2.HealthListResponse) -> bytes:
    wire: bytes = message.SerializeToString()
    return wire


def failure(error: BaseException) -> Failed:
    """How a call ends whose code raised `error`; said in the log unless it is an answer."""
    if isinstance(error, Failed):
        return error
    if isinstance(error, ProtocolError):
        log.warning("stream closed: %s", error)
        return Failed(Status.INVALID_ARGUMENT, str(error))
    log.error("stream closed: internal error", exc_info=error)
    return Failed(Status.INTERNAL, f"internal error: {error!r}")
