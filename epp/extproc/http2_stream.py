"""One stream of HTTP/2 that carries one gRPC call: messages put together, replies cut to what the client can take.

Messages are given to the call one after another. While a reply is being decided, or can't go out as the client's window
is shut, later ones wait and the client gets no more window. What waits is counted in a `Budget` all connections share.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

from epp.extproc.dialogue import Dialogue
from epp.extproc.http2_assembly import Assembly, message_length
from epp.extproc.http2_calls import DONE, Call, Process, Replies, failure
from epp.extproc.http2_codes import Error, Failed, Status, StreamBroken
from epp.extproc.http2_limits import Cancel
from epp.extproc.http2_wire import DATA, MESSAGE_HEAD_BYTES, data_message_head, frame_head, message_head

if TYPE_CHECKING:
    from epp.extproc.http2_streams import Streams

KEPT_BYTES: Final = 64
"""What a message costs that waits, beside its bytes."""


@final
class Stream:
    """One call's stream. `window`: bytes of DATA that the client takes on it, negative after it shrank its windows.

    `declared`: the content-length that was announced, or -1.
    """

    __slots__ = (
        "_assembly", "_cancel", "_closed_with", "_dialogue", "_held", "_inbox", "_last", "_pending", "answered",
        "building", "call", "declared", "gone", "granted", "half_closed", "id", "link", "padding", "received",
        "touched_at", "window",
    )  # fmt: skip

    def __init__(self, number: int, link: Streams, call: Call, window: int, declared: int = -1) -> None:
        self.id = number
        self.link = link
        self.call = call
        # Nearly every call is a dialogue, and is asked as such: anything else has its methods looked up.
        self._dialogue: Dialogue | None = call.dialogue if isinstance(call, Process) else None
        self.window = window
        self.declared = declared
        self.received = self.padding = self.granted = 0
        """Bytes of DATA, padding included; of padding; how many the client may send anew."""
        self.half_closed = self.gone = False
        self.answered = False
        """The response's headers have gone out."""
        self.touched_at = link.now
        """When an unfinished message last grew, or what waits to be sent last shrank."""
        self.building = False
        """A message, or its prefix, is here in part."""
        self._assembly: Assembly | None = None
        self._held = 0
        self._inbox: deque[bytes] | None = None
        self._pending: deque[memoryview] | None = None
        self._last = False
        """Once what waits is sent, the trailers follow."""
        self._cancel: Cancel | None = None
        self._closed_with = DONE

    @property
    def stalled(self) -> bool:
        """It waits for the client: to finish a message, or to take what is ready."""
        return self.building or bool(self._pending)

    @property
    def backed_up(self) -> bool:
        """Messages wait here: no more should come."""
        return bool(self._inbox)

    @property
    def waiting(self) -> bool:
        return self._cancel is not None or bool(self._pending) or bool(self._inbox)

    # ---- in

    def whole(self, wire: bytes, at: int, size: int) -> bool:
        """Exactly one message, as nearly every frame is."""
        length = size - MESSAGE_HEAD_BYTES
        return (
            length >= 0
            and not wire[at]
            and message_length(wire, at) == length
            and length <= self.link.limits.recv_bytes
        )

    def arrived(self, payload: bytes) -> None:
        """DATA that is not exactly one message. Raises Failed."""
        self.touched_at = self.link.now
        assembly = self._assembly
        if assembly is None:
            assembly = self._assembly = Assembly(self.link.budget, self.link.limits.recv_bytes)
        at = 0
        while at < len(payload) and not self.gone:
            at = assembly.feed(payload, at)
            wire = assembly.message
            if wire is not None:
                assembly.message = None
                self.message(wire)
        self.building = assembly.begun

    def message(self, wire: bytes) -> None:
        """A whole message: answered now, or kept until its turn. Raises Failed."""
        if self._cancel is None and not self._pending and not self._inbox:
            self._consume(wire)
            return
        self._hold(len(wire) + KEPT_BYTES)
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.append(wire)

    def ended(self) -> None:
        """The client has said all. Raises Failed or StreamBroken."""
        self.half_closed = True
        came = self.received - self.padding
        if self.declared >= 0 and self.declared != came:
            raise StreamBroken(Error.PROTOCOL_ERROR, f"content-length is {self.declared}, but {came} came")
        if self.building:
            raise Failed(Status.INTERNAL, "the stream ended within a message")
        if not self.waiting:
            self._finish()

    def _hold(self, size: int) -> None:
        self.link.budget.take(size)
        self._held += size

    def _give(self, size: int) -> None:
        self._held -= size
        self.link.budget.held -= size

    # ---- the call

    def _consume(self, wire: bytes) -> None:
        try:
            dialogue = self._dialogue
            replies = self.call.receive(wire) if dialogue is None else dialogue.receive(wire)
        except Exception as error:  # noqa: BLE001 - `failure` tells the client and the log
            raise failure(error) from None
        if isinstance(replies, list):
            self.say(replies)
        else:
            self._cancel = self.link.spawn(replies, self._decided)

    def say(self, replies: Replies) -> None:
        if replies:
            self._send(replies)
            if self._pending:
                return
        self._sent()

    def _sent(self) -> None:
        dialogue = self._dialogue
        if dialogue is None:
            self.call.sent()
            over = self.call.over
        else:
            dialogue.sent()
            over = dialogue.over
        if over:
            self.link.complete(self)

    def interject(self, replies: Replies) -> None:
        """The call says what it was not asked for: in the loop's next turn, as whoever makes it say so is not done."""
        self.link.spawn(_given(replies), self._interjected)

    def _interjected(self, said: Replies | BaseException) -> None:
        if not self.gone and isinstance(said, list):
            try:
                self.say(said)
            except Failed as failed:
                self.fail(failed)

    def _decided(self, outcome: Replies | BaseException) -> None:
        self._cancel = None
        if self.gone:
            self.call.close(self._closed_with)
            return
        try:
            if isinstance(outcome, BaseException):
                raise failure(outcome)
            self.say(outcome)
            self._go_on()
        except Failed as failed:
            self.fail(failed)

    def _go_on(self) -> None:
        """Messages that had to wait, as far as they need not wait any more; then the end, if it has come."""
        while self._inbox and not self.gone and self._cancel is None and not self._pending:
            wire = self._inbox.popleft()
            self._give(len(wire) + KEPT_BYTES)
            self._consume(wire)
        if self.gone or self.waiting:
            return
        if self.half_closed:
            self._finish()
        else:
            self.link.grant(self)

    def _finish(self) -> None:
        self._last = True
        replies = self.call.ended()
        if replies:
            self._send(replies)
        if not self._pending:
            self.link.complete(self)

    def fail(self, failed: Failed) -> None:
        """End with a status; where a message may have gone out in part, only a reset is left."""
        if self._pending and not self.gone:
            self.link.reset(self, Error.CANCEL, failed.status)
        elif not self.gone:
            self.link.end_response(self, failed.status, failed.message)

    def close(self, status: Status) -> None:
        """Give everything back, however the stream ended. A decision that is under way is cancelled first."""
        self.gone = True
        if self._held:
            self._give(self._held)
        if self._assembly is not None:
            self._assembly.give()
        self._inbox = self._pending = self._assembly = None
        if self._cancel is None:
            self.call.close(status)
        else:
            self._closed_with = status
            self._cancel()

    # ---- out

    def _send(self, replies: Replies) -> None:
        """Each at once where it fits into one frame and the windows, else as far as they allow. Raises Failed."""
        link = self.link
        if not self.answered:
            self.answered = True
            link.open_response(self.id)
        for reply in replies:
            length = len(reply)
            size = length + MESSAGE_HEAD_BYTES
            if size <= self.window and size <= link.room and size <= link.at_once and not self._pending:
                self.window -= size
                link.room -= size
                link.out.append(data_message_head(size << 8 | DATA, 0, self.id, 0, length))
                link.out.append(reply)
            else:
                self._wait(reply)
        if self._pending:
            self._pump(self._pending)

    def _wait(self, reply: bytes) -> None:
        if len(reply) > self.link.limits.send_bytes:
            limit = f"{self.link.limits.send_bytes} bytes (--grpc-max-send-msg-size)"
            raise Failed(Status.RESOURCE_EXHAUSTED, f"an answer of {len(reply)} bytes is over {limit}")
        if self._pending is None:
            self._pending = deque()
        self._pending.append(memoryview(message_head(0, len(reply)) + reply))
        self.touched_at = self.link.now

    def _pump(self, pending: deque[memoryview]) -> None:
        link = self.link
        while pending:
            waiting = pending[0]
            size = min(len(waiting), link.frame_bytes, self.window, link.room)
            if size <= 0:
                if self.window > 0:
                    link.blocked[self.id] = self
                return
            self.window -= size
            link.room -= size
            link.out.append(frame_head(size << 8 | DATA, 0, self.id))
            link.out.append(waiting[:size])
            self.touched_at = link.now
            if size == len(waiting):
                pending.popleft()
            else:
                pending[0] = waiting[size:]

    def unblocked(self) -> None:
        """Windows have grown: send what waits; once all is out, go on with the call."""
        if self.gone or not self._pending:
            return
        self._pump(self._pending)
        if self._pending:
            return
        try:
            if self._last:
                self.link.complete(self)
            else:
                self._sent()
                if not self.gone:
                    self._go_on()
        except Failed as failed:
            self.fail(failed)


async def _given(replies: Replies) -> Replies:
    return replies
