"""Each way to serve behind real Envoys, plaintext and TLS: what is not the default must work too."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.apiserver.certificates import make

from .chat import ask, ask_all, completion, events
from .client import http2_post
from .conftest import Proxied, Town
from .envoy import Envoy
from .processes import Picker, endpoints_file, picker, settles
from .test_requests import GET, troubles

WAYS = {"h2": "--transport=h2", "grpcio": "--transport=grpcio", "two workers": "--workers=2"}
CASES = [(way, secure) for way in WAYS for secure in (False, True)]


@dataclass(frozen=True)
class Way:
    """A picker with the flags that say how it is reached."""

    picker: Picker
    flags: tuple[str, ...]
    secure: bool

    def behind(self, proxied: Proxied) -> Envoy:
        return proxied(self.picker, threads=2, picker_tls=self.secure)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {'TLS' if case[1] else 'plaintext'}")
def way(request: pytest.FixtureRequest, town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    how, secure = request.param
    folder = tmp_path_factory.mktemp("way")
    make(folder)
    endpoints = endpoints_file(folder / "endpoints.yaml", [engine.address for engine in town.engines])
    flags = (WAYS[how], f"--secure-serving={str(secure).lower()}", f"--cert-path={folder}")
    with picker(folder, endpoints, *flags) as running:
        yield Way(running, flags, secure)


def test_requests_of_every_kind_are_served(way: Way, proxied: Proxied) -> None:
    proxy = way.behind(proxied)
    plain, streamed, models = (ask(proxy.port, sent) for sent in (completion(), completion(stream=True), GET))
    assert (plain.status, json.loads(plain.body)["usage"]["completion_tokens"]) == (200, 4)
    assert (streamed.status, events(streamed)[-1], models.status) == (200, b"[DONE]", 200)
    with_trailers = asyncio.run(
        http2_post(proxy.port, "/v1/completions", b'{"model": "tiny", "prompt": "x"}', [("x", "y")])
    )
    assert (with_trailers["status"], troubles(proxy)) == (200, {})


@pytest.mark.parametrize("body", ["FULL_DUPLEX_STREAMED", "BUFFERED"])
def test_a_body_of_3_mb_arrives(body: str, way: Way, proxied: Proxied) -> None:
    sizes = {"request_body": body, "response_body": body, "buffer_bytes": 8 << 20}
    proxy = proxied(way.picker, picker_tls=way.secure, **sizes)
    reply = ask(proxy.port, completion(metadata={"padding": "x" * 3_000_000}))
    assert (reply.status, troubles(proxy)) == (200, {})


def test_a_hundred_streams_at_once_leave_nothing_behind(way: Way, proxied: Proxied) -> None:
    proxy = way.behind(proxied)
    replies = ask_all(proxy.port, [completion(f"story {n}", stream=True, max_tokens=20) for n in range(100)])
    assert {(reply.status, reply.whole, events(reply)[-1]) for reply in replies} == {(200, True, b"[DONE]")}
    assert troubles(proxy) == {}
    assert settles(0, lambda: way.picker.metric("llm_d_epp_request_running")) == 0


def test_clients_that_hang_up_are_refunded(way: Way, proxied: Proxied) -> None:
    proxy = way.behind(proxied)

    async def leave_early() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(completion("a long story", stream=True, max_tokens=900))
        await reader.readuntil(b"data: ")
        writer.close()

    async def several() -> None:
        await asyncio.gather(*(leave_early() for _ in range(10)))

    asyncio.run(several())
    assert settles(0, lambda: way.picker.metric("llm_d_epp_request_running")) == 0
    assert ask(proxy.port, completion()).status == 200


def test_a_drain_lets_open_streams_end(proxied: Proxied, town: Town, way: Way, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, *way.flags, "--drain-timeout=20s") as leaving:
        proxy = proxied(leaving, picker_tls=way.secure)

        async def drained() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(completion("a story", stream=True, max_tokens=400))
            head = await reader.readuntil(b"data: ")
            leaving.child.process.terminate()
            rest = await reader.read()
            writer.close()
            return head + rest

        said = asyncio.run(drained())
        assert b"[DONE]" in said
        assert leaving.child.process.wait(30) == 0
