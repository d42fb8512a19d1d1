"""The edge's side of a request that is decided in another process: Desk and Books whose calls are messages."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from epp import headers as names
from epp.bodies.parsed import Parsed
from epp.bodies.registry import Parsers
from epp.headers import Headers, Metadata, OwnMetadata
from epp.rules import Asked, Forward, Habits
from epp.types import Outcome, Refused
from epp.workers import messages as say
from epp.workers.link import Link

MANY_GAPS = 64
"""Told at once, and at the latest when the response ends."""


ABSENT = "the process that decides is not there; it is being started again"
STUCK = "the process that decides does not read what it is asked"


def _unavailable(why: str) -> Refused:
    return Refused(503, why, by="decider")


class PickerError(Exception):
    """The decider failed at a request by a fault of its own; its log has the rest."""


class RemoteDesk:
    """The Desk of one edge. It has a link while there is a decider."""

    def __init__(self, habits: Habits, *, now: Callable[[], float] = time.monotonic) -> None:
        self.habits = habits
        self.now = now
        self.evicts = True
        self.parsers = Parsers(())
        self.prompts = True
        """Whether prompts are sent."""
        self.link: Link[say.FromDecider] | None = None
        self.open_books: dict[int, RemoteBooks] = {}
        self.wrapped = self.read = self.undecided = 0
        """Counted for the next Tally."""
        self._last = 0

    def open(self, received_at: float) -> RemoteBooks:
        self._last += 1
        return RemoteBooks(self, self._last, received_at)

    def passed(self, wrapped: int, read: int) -> None:
        self.wrapped += wrapped
        self.read += read

    def hear(self, message: say.FromDecider) -> None:
        """What the decider says of a request; of one that is over it is late."""
        books = self.open_books.get(getattr(message, "number", 0))
        if books is not None:
            books.hear(message)

    def abandoned(self) -> None:
        """The decider is gone, and with it what it knew of every request."""
        self.link = None
        for books in tuple(self.open_books.values()):
            books.abandoned()
        self.open_books.clear()


class RemoteBooks(Struct, eq=False):
    """The Books of one request. Without a decider new requests are refused with 503; those on their way go on."""

    _desk: RemoteDesk
    _number: int
    _received_at: float
    evicted: Callable[[], None] | None = None
    _link: Link[say.FromDecider] | None = None
    """The decider that knows of it."""
    _asking: asyncio.Future[Any] | None = None  # what is asked for has its own type each time
    _absent: Any = None
    """What the answer is where the decider is gone: an error or a value."""
    _head_hooks: bool = False
    _end_hooks: bool = False
    _gaps: array[float] | None = None

    def pick(self, asked: Asked) -> Awaitable[Forward]:
        desk = self._desk
        link = self._link = desk.link
        if link is None:
            desk.undecided += 1
            raise _unavailable(ABSENT)
        if link.full:
            # Clients that come again and again would fill this process's memory with what nobody reads.
            self._link = None
            desk.undecided += 1
            raise _unavailable(STUCK)
        desk.open_books[self._number] = self
        link.say(
            say.Asking(
                self._number,
                self._received_at,
                asked.headers,  # type: ignore[arg-type]  # a dict, whatever it is called
                asked.metadata,  # type: ignore[arg-type]
                asked.path,
                asked.parsed if desk.prompts or not asked.parsed.prompts else _promptless(asked.parsed),
                asked.body_bytes,
                asked.bodiless,
                None if asked.refusal is None else say.answer(asked.refusal),
            )
        )
        return self._ask(_unavailable(ABSENT))

    def refuse(self, refusal: Refused) -> None:
        if self._link is None and self._desk.link is not None and refusal.by != "decider":
            self._desk.link.say(say.Refusing(self._number, self._received_at, say.answer(refusal)))
        self._forget()

    def head(self, headers: Headers, metadata: Metadata, failure: str) -> dict[str, str] | Awaitable[dict[str, str]]:
        link = self._link
        if link is None:
            return {}
        if self._head_hooks:
            link.say(say.Headed(self._number, failure, dict(headers), dict(metadata), asks=True))
            return self._ask({})
        report = headers.get(names.LOAD_REPORT) if self._desk.habits.load_report else None
        link.say(say.Headed(self._number, failure, {names.LOAD_REPORT: report} if report else {}, {}, asks=False))
        return {}

    def first_piece(self) -> None:
        if self._link is not None:
            self._link.say(say.Begun(self._number))

    def gaps(self) -> Callable[[float], None]:
        self._gaps = array("d")
        return self._gap

    def settle(self, outcome: Outcome) -> OwnMetadata | Awaitable[OwnMetadata]:
        link = self._link
        if link is None:
            self._forget()
            return {}
        self._tell_gaps(link)
        asks = self._end_hooks and outcome.cause == "natural"
        try:
            link.say(say.Settled(self._number, outcome, asks))
        except OverflowError:
            # Who counted this is a stranger's parser; that the request is over must be told.
            link.say(say.Settled(self._number, replace(outcome, usage=None), asks))
        if asks:
            return self._ask({})
        self._forget()
        return {}

    def hear(self, message: say.FromDecider) -> None:
        match message:
            case say.Forwarded(_, forward, head_hooks, end_hooks):
                self._head_hooks, self._end_hooks = head_hooks, end_hooks
                self._answer(say.forward(forward))
            case say.Told(_, told):
                self._answer(told)
            case say.Closed(_, metadata):
                self._answer(metadata)
                self._forget()
            case say.Turned(_, refusal):
                self._answer(say.refused(refusal))
            case say.Failing(_, error):
                self._answer(PickerError(error))
            case say.Evicting() if self.evicted is not None:
                self.evicted()

    def abandoned(self) -> None:
        self._link = None
        if self._asking is not None and isinstance(self._absent, Refused):
            self._desk.undecided += 1
        self._answer(self._absent)

    def _ask(self, absent: object) -> asyncio.Future[Any]:
        self._absent = absent
        self._asking = asyncio.get_running_loop().create_future()
        return self._asking

    def _answer(self, told: object) -> None:
        asking, self._asking = self._asking, None
        if asking is None or asking.done():
            return
        if isinstance(told, BaseException):
            asking.set_exception(told)
            # Who waits may leave in this very turn and never look: no error that the log must tell of.
            asking.exception()
        else:
            asking.set_result(told)

    def _gap(self, seconds: float) -> None:
        if self._gaps is not None:
            self._gaps.append(seconds)
            if len(self._gaps) >= MANY_GAPS and self._link is not None:
                self._tell_gaps(self._link)

    def _tell_gaps(self, link: Link[say.FromDecider]) -> None:
        if self._gaps:
            link.say(say.Gaps(self._number, self._gaps.tobytes()))
            self._gaps = array("d")

    def _forget(self) -> None:
        self._link = None
        self._desk.open_books.pop(self._number, None)


def _promptless(parsed: Parsed) -> Parsed:
    return replace(parsed, prompts=())
