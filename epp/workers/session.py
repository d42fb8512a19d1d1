"""The decider's side of one edge: requests it asks for, each with its books, until it is gone."""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec import Struct

from epp.account import Account
from epp.extproc.service import StreamWatch
from epp.route import Router
from epp.rules import Asked, Forward
from epp.types import Outcome, Refused
from epp.workers import messages as say
from epp.workers.link import Link

GONE = Outcome(usage=None, status=0, cause="error", ttft_s=None, duration_s=0.0)
log = logging.getLogger("epp.workers")


class Open(Struct, eq=False):
    """A request of this edge."""

    account: Account
    deciding: asyncio.Future[Forward] | None = None
    gap: Callable[[float], None] | None = None


class Session:
    """What one edge has under way. `hear` its messages; `close` when it is gone, which refunds all."""

    def __init__(self, router: Router, watch: StreamWatch, tallied: Callable[[say.Tally], None]) -> None:
        self._router, self._watch, self._tallied = router, watch, tallied
        self.link: Link[say.FromEdge] | None = None
        self.requests: dict[int, Open] = {}
        self.streams = 0

    def hear(self, message: say.FromEdge) -> None:
        match message:
            case say.Asking():
                self._pick(message)
            case say.Begun(number) if number in self.requests:
                self.requests[number].account.first_piece()
            case say.Headed(number) if number in self.requests:
                self._head(self.requests[number].account, message)
            case say.Gaps(number, seconds) if number in self.requests:
                self._gaps(self.requests[number], seconds)
            case say.Settled(number) if number in self.requests:
                self._settle(self.requests.pop(number), message)
            case say.Refusing(_, received_at, refusal):
                self._router.open(received_at).refuse(say.refused(refusal))
            case say.Tally():
                self._tally(message)

    def close(self) -> None:
        """The edge is gone: what it had under way ended with it."""
        requests, self.requests = self.requests, {}
        for request in requests.values():
            if request.deciding is not None:
                request.deciding.cancel()
            request.account.settle(GONE)
        for _ in range(self.streams):
            self._watch.stream_closed(0.0, "Unavailable")
        self.streams = 0

    # ---- a request

    def _pick(self, asking: say.Asking) -> None:
        number, account = asking.number, self._router.open(asking.received_at)
        request = self.requests[number] = Open(account)
        if self._router.evicts:
            account.evicted = partial(self._say, say.Evicting(number))
        asked = Asked(
            asking.headers,
            asking.metadata,
            asking.path,
            asking.parsed,
            asking.body_bytes,
            bodiless=asking.bodiless,
            refusal=None if asking.refusal is None else say.refused(asking.refusal),
        )
        try:
            forward = account.pick(asked)
        except Exception as error:  # noqa: BLE001 - `_failed` tells the edge and the log
            self._failed(number, error)
            return
        if isinstance(forward, Forward):
            self._forward(number, account, forward)
        else:
            request.deciding = asyncio.ensure_future(_awaited(forward))
            request.deciding.add_done_callback(partial(self._decided, number, account))

    def _forward(self, number: int, account: Account, forward: Forward) -> None:
        hooks = account.rules.hooks
        try:
            self._say(say.Forwarded(number, say.sent(forward), hooks.of_responses, hooks.of_ends))
        except Exception as error:  # noqa: BLE001 - what a plug-in told is no message
            self._failed(number, error)

    def _decided(self, number: int, account: Account, deciding: asyncio.Future[Forward]) -> None:
        request = self.requests.get(number)
        if deciding.cancelled():
            return
        error = deciding.exception()
        if request is None:
            return
        request.deciding = None
        if error is None:
            self._forward(number, account, deciding.result())
        else:
            self._failed(number, error)

    def _failed(self, number: int, error: BaseException) -> None:
        """No endpoint: with a reason, or for a fault of ours."""
        request = self.requests.pop(number)
        if isinstance(error, Refused):
            request.account.refuse(error)
            self._say(say.Turned(number, say.answer(error)))
            return
        log.error("internal error", exc_info=error)
        request.account.settle(GONE)
        self._say(say.Failing(number, repr(error)))

    def _head(self, account: Account, headed: say.Headed) -> None:
        try:
            told = account.head(headed.headers, headed.metadata, headed.failure)
            if headed.asks:
                self._say(say.Told(headed.number, told))
        except Refused as refusal:
            self._say(say.Turned(headed.number, say.answer(refusal)))
        except Exception as error:
            log.exception("internal error")
            self._say(say.Failing(headed.number, repr(error)))

    def _settle(self, request: Open, settled: say.Settled) -> None:
        if request.deciding is not None:
            request.deciding.cancel()
        try:
            metadata = request.account.settle(settled.outcome)
            if settled.asks:
                self._say(say.Closed(settled.number, metadata))
        except Exception:
            # The response goes on without what it would tell.
            log.exception("internal error")
            self._say(say.Closed(settled.number, {}))

    @staticmethod
    def _gaps(request: Open, seconds: bytes) -> None:
        if request.gap is None:
            request.gap = request.account.gaps()
        for gap_s in array("d", seconds):
            request.gap(gap_s)

    def _tally(self, tally: say.Tally) -> None:
        for _ in range(tally.opened):
            self._watch.stream_opened()
        for seconds, code in tally.closed:
            self._watch.stream_closed(seconds, code)
        self.streams += tally.opened - len(tally.closed)
        if tally.wrapped or tally.read:
            self._router.passed(tally.wrapped, tally.read)
        self._tallied(tally)

    def _say(self, message: say.FromDecider) -> None:
        if self.link is not None:
            self.link.say(message)


async def _awaited(forward: Awaitable[Forward]) -> Forward:
    return await forward
