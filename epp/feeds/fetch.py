"""One metrics page over HTTP, whatever the other side does."""

from __future__ import annotations

import errno
import ssl

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from epp.feeds import ScrapeFailure

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


def session(timeout_s: float) -> aiohttp.ClientSession:
    """The session all scrapes share. Engines are asked not to compress: it would cost both sides more than it saves."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEEP_ALIVE_S, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        headers={"Accept-Encoding": "identity", "User-Agent": "epp"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


async def fetch(http: aiohttp.ClientSession, url: URL, tls: ssl.SSLContext | None) -> bytes:
    """The body of a 200 answer of at most MAX_PAGE_BYTES; redirects are not followed. Raises ScrapeError alone."""
    try:
        async with http.get(url, ssl=True if tls is None else tls, allow_redirects=False) as response:
            if response.status != 200:
                raise ScrapeError("status", f"answered {response.status}, not 200")
            return await _body(response.content)
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise ScrapeError(_kind(error), f"{type(error).__name__}: {error}") from error


async def _body(stream: aiohttp.StreamReader) -> bytes:
    pieces = []
    size = 0
    async for piece in stream.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_PAGE_BYTES:
            raise ScrapeError("parse", f"the page is larger than {MAX_PAGE_BYTES} bytes")
    return b"".join(pieces)


def _kind(error: Exception) -> ScrapeFailure:
    """The order matters: a failed certificate check is also a failed connect, a time-out also a lost connection."""
    match error:
        case TimeoutError():
            return "timeout"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls"
        case aiohttp.ClientConnectorDNSError():
            return "lost"
        case aiohttp.ClientConnectorError():
            return "refused" if error.errno in UNREACHABLE else "lost"
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return "lost"
        case _:
            return "parse"
