"""gRPC messages out of DATA that does not hold exactly one: several in a frame, or one in several frames."""

from __future__ import annotations

from typing import Final, final

from epp.extproc.http2_codes import Failed, Status
from epp.extproc.http2_limits import Budget
from epp.extproc.http2_wire import MESSAGE_HEAD_BYTES

SMALL_BYTES: Final = 1_024
"""Pieces of a message below this are copied together: one object each would cost more than their bytes."""


@final
class Assembly:
    """What is here of one stream's next message. `held` of it is taken from the budget.

    `message` is the one that `feed` has completed; who takes it away sets it back to None.
    """

    __slots__ = ("_budget", "_head", "_longest", "_missing", "_parts", "held", "message")

    def __init__(self, budget: Budget, longest: int) -> None:
        self._budget = budget
        self._longest = longest
        self._head = b""
        """What is here of a message's five first bytes."""
        self._parts: list[bytes | bytearray] | None = None
        self._missing = 0
        self.held = 0
        self.message: bytes | None = None

    @property
    def begun(self) -> bool:
        """A message, or its head, is here in part."""
        return self._parts is not None or bool(self._head)

    def feed(self, payload: bytes, at: int) -> int:
        """Takes one message, or as much as there is of it; where it ends in `payload`. Raises Failed."""
        parts = self._parts
        if parts is None:
            wanted = MESSAGE_HEAD_BYTES - len(self._head)
            self._head += payload[at : at + wanted]
            if len(self._head) < MESSAGE_HEAD_BYTES:
                return len(payload)
            at += wanted
            parts = self._begin(self._head)
        piece = payload[at : at + self._missing]
        self._missing -= len(piece)
        if not self._missing and not parts:
            self._parts, self.message = None, piece
        elif piece:
            self._keep(parts, piece)
        return at + len(piece)

    def _begin(self, head: bytes) -> list[bytes | bytearray]:
        length = message_length(head, 0)
        if head[0]:
            raise Failed(Status.UNIMPLEMENTED, "compressed messages are not taken; use grpc-encoding identity")
        if length > self._longest:
            limit = f"{self._longest} bytes (--grpc-max-recv-msg-size)"
            raise Failed(Status.RESOURCE_EXHAUSTED, f"a message of {length} bytes is over {limit}")
        self._head, self._missing = b"", length
        parts: list[bytes | bytearray] = []
        self._parts = parts
        return parts

    def _keep(self, parts: list[bytes | bytearray], piece: bytes) -> None:
        self._budget.take(len(piece))
        self.held += len(piece)
        if len(piece) >= SMALL_BYTES:
            parts.append(piece)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += piece
        else:
            parts.append(bytearray(piece))
        if not self._missing:
            self.give()
            self._parts, self.message = None, b"".join(parts)

    def give(self) -> None:
        """Give everything back."""
        self._budget.held -= self.held
        self.held = 0


def message_length(wire: bytes, at: int) -> int:
    """Of the message whose five first bytes are at `at`."""
    return wire[at + 1] << 24 | wire[at + 2] << 16 | wire[at + 3] << 8 | wire[at + 4]
