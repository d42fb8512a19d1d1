"""One metrics page over HTTP, whatever the other side does. Connections are kept, for one request at a time each."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
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
    """A connection to an endpoint; `get` may be called again once the former answer is whole and it is `usable`."""

    def __init__(self) -> None:
        self.used = False
        self.idle_since = 0.0
        self.open = True
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._whole: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class

    def get(self, wire: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._answer = Answer(MAX_PAGE_BYTES)
        self._whole = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return self._whole

    @property
    def begun(self) -> bool:
        """Something of the latest answer came."""
        return self._answer is not None and self._answer.begun

    @property
    def done_well(self) -> bool:
        """The latest answer is there."""
        whole = self._whole
        return whole is not None and whole.done() and not whole.cancelled() and whole.exception() is None

    def data_received(self, wire: bytes) -> None:
        if self._answer is None or self._whole is None or self._whole.done():
            self.abort()  # nothing was asked
            return
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

    def abort(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()


Place = tuple[str, int, ssl.SSLContext | None]
"""Connections made with another TLS context are not used."""


class Session:
    """The connections all scrapes share."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._kept: dict[Place, _Connection] = {}
        self._all: set[_Connection] = set()
        self._swept_at = 0.0

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in list(self._all):
            one.abort()
        self._kept.clear()
        self._all.clear()

    async def get(self, url: URL, tls: ssl.SSLContext | None) -> Answer:
        """Tried once more where the engine had closed a kept connection before it saw the request."""
        assert url.raw_host is not None
        assert url.port is not None
        wire = request(url.raw_authority, url.raw_path_qs)
        self._sweep(asyncio.get_running_loop().time())
        while True:
            place = (url.raw_host, url.port, tls)
            one = self._taken(place) or await self._made(url.raw_host, url.port, tls)
            again = one.used
            one.used = True
            try:
                answer = await one.get(wire)
            except (CutOffError, OSError):
                if again and not one.begun:
                    continue
                raise
            finally:
                self._given_back(place, one)
            return answer

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
        """Kept if another request can follow: not after an answer that failed or was not waited for."""
        if one.done_well and one.open and place not in self._kept:
            one.idle_since = asyncio.get_running_loop().time()
            self._kept[place] = one
        else:
            self._drop(one)


def session(timeout_s: float) -> Session:
    """`timeout_s` is for a whole scrape: connecting, asking, reading."""
    return Session(timeout_s)


async def fetch(http: Session, url: URL, tls: ssl.SSLContext | None) -> bytes:
    """The body of a 200 answer of at most MAX_PAGE_BYTES; redirects are not followed. Raises ScrapeError alone."""
    try:
        async with asyncio.timeout(http.timeout_s):
            answer = await http.get(url, tls if url.scheme == "https" else None)
    except (HttpError, CutOffError, OSError, ValueError) as error:
        raise ScrapeError(_kind(error), f"{type(error).__name__}: {error}") from error
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
