"""How requests stand in the queue: one that must wait is an awaitable for its answer, one that may go is not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from epp.account import Account
from epp.flow.ticket import DISPATCHED
from epp.rules import Forward
from epp.types import Refused

if TYPE_CHECKING:
    from epp.flow.control import FlowControl

Decide = Callable[[], Forward | Awaitable[Forward]]
GONE = "client disconnected: request evicted from queue: request context cancelled"


class Queueing:
    """The queue as the route uses it. `soon` runs a call in the next turn of the loop."""

    def __init__(self, flow: FlowControl, soon: Callable[[Callable[[], None]], object]) -> None:
        self.flow = flow
        self.evicts = False
        """Requests may be ended while they are on their way."""
        self._soon = soon
        self._woken = False

    def enter(self, account: Account, decide: Decide) -> Forward | Awaitable[Forward]:
        """`decide` as soon as the request may go. Raises Refused, or returns an awaitable that may."""
        waiting = _Waiting(account, decide)
        request = account.request
        ticket = account.ticket = self.flow.enter(request, request.body_bytes, waiting.go, waiting.refuse)
        ticket.evict = account.evict
        if ticket.state is DISPATCHED:
            return decide()
        waiting.outcome = asyncio.get_running_loop().create_future()
        return waiting

    def wake(self) -> None:
        """Something may have freed a place: look once for all that this turn of the loop brings."""
        if not self._woken:
            self._woken = True
            self._soon(self._changed)

    def _changed(self) -> None:
        self._woken = False
        self.flow.changed()


class _Waiting:
    """One request in the queue. Await it for its answer, or leave it where the client has left before that."""

    __slots__ = ("_account", "_decide", "outcome")

    outcome: asyncio.Future[Forward | Awaitable[Forward]]

    def __init__(self, account: Account, decide: Decide) -> None:
        self._account = account
        self._decide = decide

    def go(self) -> None:
        """Its turn: decide, and charge, before the next one is looked at."""
        if self.outcome.cancelled():
            # The client left in this very turn of the loop: `_answer` hears of it in the next and gives the place back.
            return
        try:
            self.outcome.set_result(self._decide())
        except Exception as error:  # noqa: BLE001 - `_answer` raises it
            self.outcome.set_exception(error)

    def refuse(self, refusal: Refused) -> None:
        if not self.outcome.cancelled():
            self.outcome.set_exception(refusal)
            # Its client may leave in this very turn and nobody look: no error that the log must tell of.
            self.outcome.exception()

    def __await__(self) -> Generator[Any, None, Forward]:
        return self._answer().__await__()

    async def _answer(self) -> Forward:
        try:
            forward = await self.outcome
            return forward if isinstance(forward, Forward) else await forward
        except Refused as refusal:
            self._account.refuse(refusal)
            raise
        except asyncio.CancelledError:
            self._forget()
            self._account.refuse(Refused(503, GONE, "rejected-context-cancelled", "flow-control"))
            raise

    def _forget(self) -> None:
        """Nobody waits for the outcome any more, should there be one by now."""
        if not self.outcome.done() or self.outcome.cancelled() or self.outcome.exception() is not None:
            return
        forward = self.outcome.result()
        if inspect.iscoroutine(forward):
            forward.close()
