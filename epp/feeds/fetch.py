"""One metrics page over HTTP, whatever the other side does. Connections are kept, for one request at a time each."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import OrderedDict
from functools import lru_cache
from types import TracebackType
from typing import cast

from yarl import URL

from epp.feeds import ScrapeFailure
from epp.feeds.http1 import Answer, CutOffError, HttpError, TooLargeError, request

MAX_PAGE_BYTES = 8 * 1024 * 1024
KEEP_ALIVE_S = 75.0
"""How long an unused connection stays open: longer than any back-off."""
CONNECTIONS = 128
"""Scrapes at the same time."""
UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
"""Errors of connect() that say that nobody listens there; others (too many open files) are about us."""


class ScrapeError(Exception):
    """No page was had; `kind` says why."""

    def __init__(self, kind: ScrapeFailure, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Connection(asyncio.Protocol):
    """A connection to an endpoint; `get` may be called again once the former answer is whole and it is `open`."""

    def __init__(self) -> None:
        self.used = False
        self.idle_since = 0.0
        self.open = True
        self.begun = False
        """Something of the latest answer came."""
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._whole: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def get(self, wire: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self.used, self.begun = True, False
        self._answer = Answer(MAX_PAGE_BYTES)
        self._whole = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return self._whole

    def free(self) -> bool:
        """Nobody waits any more; True if another request can follow: not after an answer that failed or is not there.

        What came is not kept, as the connection is."""
        whole, self._whole, self._answer = self._whole, None, None
        well = whole is not None and whole.done() and not whole.cancelled() and whole.exception() is None
        return well and self.open

    def data_received(self, wire: bytes) -> None:
        if self._answer is None or self._whole is None or self._whole.done():
            self.abort()  # nothing was asked
            return
        self.begun = True
        try:
            if self._answer.feed(wire):
                self.open = self.open and self._answer.reusable
                self._whole.set_result(self._answer)
        except HttpError as error:
            self._whole.set_exception(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.open = False
        if self._answer is None or self._whole is None or self._whole.done():
            return
        try:
            if error is not None:
                raise error
            self._answer.ended()
            self._whole.set_result(self._answer)
        except (CutOffError, OSError) as lost:
            self._whole.set_exception(lost)

    def late(self) -> None:
        """The time for the answer is over."""
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(TimeoutError())

    def abort(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()


class _Deadlines:
    """Ends what takes too long, with one timer for all: their time is the same, so they end in the order they began."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._begun: OrderedDict[_Connection, float] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, one: _Connection) -> None:
        loop = asyncio.get_running_loop()
        self._begun[one] = loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._look)

    def end(self, one: _Connection) -> None:
        self._begun.pop(one, None)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop, self._timer = asyncio.get_running_loop(), None
        while self._begun:
            one, ends_at = next(iter(self._begun.items()))
            if (left_s := ends_at - loop.time()) > 0:
                self._timer = loop.call_later(left_s, self._look)
                return
            del self._begun[one]
            one.late()


Place = tuple[str, int, ssl.SSLContext | None]
"""Connections made with another TLS context are not used."""


class Session:
    """The connections all scrapes share."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._kept: dict[Place, _Connection] = {}
        self._all: set[_Connection] = set()
        self._swept_at = 0.0
        self._deadlines = _Deadlines(timeout_s)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.close()
        for one in list(self._all):
            one.abort()
        self._kept.clear()
        self._all.clear()

    async def get(self, url: URL, tls: ssl.SSLContext | None) -> Answer:
        """Asked anew where the engine had closed a kept connection before it saw the request."""
        host, port, wire = _asked(url)
        place = (host, port, tls)
        self._sweep(asyncio.get_running_loop().time())
        if (one := self._taken(place)) is not None:
            self._deadlines.begin(one)
            try:
                return await one.get(wire)
            except TimeoutError:
                raise
            except (CutOffError, OSError):
                if one.begun:
                    raise
            finally:
                self._deadlines.end(one)
                self._given_back(place, one)
        async with asyncio.timeout(self.timeout_s):
            one = await self._made(host, port, tls)
            try:
                return await one.get(wire)
            finally:
                self._given_back(place, one)

    def _sweep(self, now: float) -> None:
        """Now and then, close what nobody asked for long."""
        if now - self._swept_at < KEEP_ALIVE_S / 8:
            return
        self._swept_at = now
        for place, one in list(self._kept.items()):
            if not one.open or now - one.idle_since > KEEP_ALIVE_S:
                del self._kept[place]
                self._drop(one)

    def _drop(self, one: _Connection) -> None:
        one.abort()
        self._all.discard(one)

    def _taken(self, place: Place) -> _Connection | None:
        one = self._kept.pop(place, None)
        if one is None or one.open:
            return one
        self._drop(one)
        return None

    async def _made(self, host: str, port: int, tls: ssl.SSLContext | None) -> _Connection:
        loop = asyncio.get_running_loop()
        _, one = await loop.create_connection(_Connection, host, port, ssl=tls)
        self._all.add(one)
        return one

    def _given_back(self, place: Place, one: _Connection) -> None:
        """Kept if another request can follow."""
        if one.free() and place not in self._kept:
            one.idle_since = asyncio.get_running_loop().time()
            self._kept[place] = one
        else:
            self._drop(one)


@lru_cache(maxsize=4096)
def _asked(url: URL) -> tuple[str, int, bytes]:
    """(host, port, request); remembered, as each page is asked for again and again."""
    assert url.raw_host is not None
    assert url.port is not None
    return url.raw_host, url.port, request(url.raw_authority, url.raw_path_qs)


def session(timeout_s: float) -> Session:
    """`timeout_s` is for a whole scrape: connecting, asking, reading; anew where a kept connection was closed."""
    return Session(timeout_s)


async def fetch(http: Session, url: URL, tls: ssl.SSLContext | None) -> bytes:
    """The body of a 200 answer of at most MAX_PAGE_BYTES, over `tls` if given; redirects are not followed. Raises
    ScrapeError alone."""
    try:
        answer = await http.get(url, tls)
    except (HttpError, CutOffError, OSError, ValueError) as error:
        # asyncio's own time-out says nothing.
        said = str(error) or f"no whole answer in {http.timeout_s:g} s"
        raise ScrapeError(_kind(error), f"{type(error).__name__}: {said}") from error
    if answer.status != 200:
        raise ScrapeError("status", f"answered {answer.status}, not 200")
    return answer.body


def _kind(error: Exception) -> ScrapeFailure:
    """The order matters: a failed certificate check and a time-out are OSErrors too."""
    match error:
        case TimeoutError():
            return "timeout"
        case ssl.SSLError():
            return "tls"
        case TooLargeError() | HttpError():
            return "parse"
        case socket.gaierror() | CutOffError():
            return "lost"
        case OSError():
            return "refused" if error.errno in UNREACHABLE else "lost"
        case _:
            return "parse"
