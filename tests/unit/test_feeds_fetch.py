"""One page over HTTP from servers that behave and servers that do not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop
from yarl import URL

from epp.feeds.fetch import MAX_PAGE_BYTES, ScrapeError, fetch, session

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PAGE = b"vllm:num_requests_running 1\n"


def got(answer: Answer, *, timeout_s: float = 5.0) -> bytes:
    """The page that `fetch` gets from a server that answers each connection with `answer`."""

    async def main() -> bytes:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await answer(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with session(timeout_s) as http:
            try:
                return await fetch(http, URL(f"http://127.0.0.1:{port}/metrics"), None)
            finally:
                server.close()

    return asyncio.run(main())


def says(text: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return answer


def says_for_ever(head: bytes, piece: bytes, *, pause_s: float = 0.0) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(head)(reader, writer)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes without a word."""


async def stays_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def sized(body: bytes, size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNSIZED = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(sized(PAGE), id="sized"),
        pytest.param(CHUNKED + b"5\r\nvllm:\r\n17\r\nnum_requests_running 1\n\r\n0\r\n\r\n", id="chunked"),
        pytest.param(UNSIZED + PAGE, id="until the connection closes"),
    ],
)
def test_a_page_is_fetched_in_every_framing(text: bytes) -> None:
    assert got(says(text)) == PAGE


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_connection_is_kept_and_replaced_once_the_engine_has_closed_it(run: Callable[..., list[int]]) -> None:
    async def main() -> list[int]:
        asked: list[int] = []
        left = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(0)
            try:
                for _ in range(2):
                    await reader.readuntil(b"\r\n\r\n")
                    asked[-1] += 1
                    writer.write(sized(PAGE))
            except (asyncio.IncompleteReadError, ConnectionError):
                left.set()
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics")
        async with session(5) as http:
            assert [await fetch(http, url, None) for _ in range(5)] == [PAGE] * 5
        await left.wait()
        server.close()
        return asked

    assert run(main()) == [2, 2, 1]


def test_compression_is_declined() -> None:
    seen = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(sized(PAGE))

    got(answer)
    assert b"Accept-Encoding: identity\r\n" in seen[0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(says(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "status", id="404"),
        pytest.param(says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), "status", id="500"),
        pytest.param(
            says(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"), "status", id="redirect"
        ),
        pytest.param(says(b"\x16\x03\x01garbage\r\n\r\n"), "parse", id="no HTTP"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "parse", id="endless header"),
        pytest.param(says(CHUNKED + b"nonsense\r\n"), "parse", id="broken chunk"),
        pytest.param(says(sized(b"", MAX_PAGE_BYTES + 1) + b" " * (MAX_PAGE_BYTES + 1)), "parse", id="too large"),
        pytest.param(says_for_ever(UNSIZED, b"m 1\n" * 10_000), "parse", id="endless page"),
        pytest.param(says(sized(PAGE, 1000)), "lost", id="cut off"),
        pytest.param(hangs_up, "lost", id="hangs up"),
    ],
)
def test_what_is_no_page_is_told_apart(answer: Answer, kind: str) -> None:
    with pytest.raises(ScrapeError) as failure:
        got(answer)
    assert failure.value.kind == kind


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(stays_silent, id="no answer"),
        pytest.param(says_for_ever(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", pause_s=0.02), id="slow headers"),
        pytest.param(says_for_ever(CHUNKED, b"1\r\nm\r\n", pause_s=0.02), id="slow body"),
    ],
)
def test_a_slow_page_is_given_up(answer: Answer) -> None:
    with pytest.raises(ScrapeError) as failure:
        got(answer, timeout_s=0.2)
    assert (failure.value.kind, str(failure.value)) == ("timeout", "TimeoutError: no whole answer in 0.2 s")


def test_on_kept_connections_each_slow_page_is_given_up_in_its_time_and_asked_anew_afterwards() -> None:
    async def main() -> tuple[list[object], bytes, int]:
        silent = True
        asked: list[int] = []
        serving: list[asyncio.Future[None]] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = len(asked)
            asked.append(0)
            serving.append(asyncio.current_task())  # type: ignore[arg-type]
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    if asked[number] == 0 or not silent:
                        writer.write(sized(PAGE))
                    asked[number] += 1
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        servers = [await asyncio.start_server(serve, "127.0.0.1", 0) for _ in range(3)]
        urls = [URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics") for server in servers]
        async with session(0.2) as http:
            assert [await fetch(http, url, None) for url in urls] == [PAGE] * 3
            failures = await asyncio.gather(*[fetch(http, url, None) for url in urls], return_exceptions=True)
            silent = False
            page = await fetch(http, urls[0], None)
        await asyncio.gather(*serving)
        for server in servers:
            server.close()
        return [getattr(failure, "kind", failure) for failure in failures], page, len(asked)

    assert asyncio.run(main()) == (["timeout"] * 3, PAGE, 4)


def test_a_port_where_nobody_listens_is_refused() -> None:
    async def main() -> None:
        with socket.socket() as held:  # bound and not listening: nobody else takes the port meanwhile
            held.bind(("127.0.0.1", 0))
            async with session(5) as http:
                await fetch(http, URL(f"http://127.0.0.1:{held.getsockname()[1]}/"), None)

    with pytest.raises(ScrapeError) as failure:
        asyncio.run(main())
    assert failure.value.kind == "refused"
