"""Requests to the API server: where it is, who we are, and what becomes of answers that are none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from epp.kube import ApiError, CredentialsError
from epp.kube.client import Api
from tests.apiserver import ApiServer

from .kube_kit import connected, pod

PODS = "/api/v1/namespaces/llm/pods"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*given: Any, **named: Any) -> None:
        asyncio.run(test(*given, **named))

    return run


@asynccontextmanager
async def answering(folder: Path, *answer: bytes) -> AsyncIterator[Api]:
    """An API server that says just this, whatever it is asked, and hangs up; nothing = it hangs."""

    talks: set[asyncio.Task[Any]] = set()

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]  # it is one
        await reader.readuntil(b"\r\n\r\n")
        for piece in answer:
            writer.write(piece)
            await writer.drain()
        if not answer:
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = folder / "kubeconfig"
    path.write_text(kubeconfig(f"http://127.0.0.1:{port}"))
    api = await Api.connect({"KUBECONFIG": str(path)})
    try:
        yield api
    finally:
        await api.close()
        server.close()
        await asyncio.wait(talks)


def kubeconfig(server: str) -> str:
    return (
        f"{{apiVersion: v1, kind: Config, clusters: [{{name: c, cluster: {{server: '{server}'}}}}], "
        "users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}], "
        "current-context: c}"
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "KUBERNETES_SERVICE_HOST is not set"),
        ({"KUBECONFIG": "/nonexistent/config"}, "KUBECONFIG=/nonexistent/config: there is no such file"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}, "the service account of this pod"),
    ],
    ids=["nothing", "no such file", "a pod without a token"],
)
def test_what_is_missing_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(CredentialsError, match=said):
        asyncio.run(Api.connect(environ))


@pytest.mark.parametrize("text", ["junk: [", "", "[]", "{apiVersion: v1}", "current-context: gone", "\x00"])
def test_a_kubeconfig_that_is_none_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(CredentialsError, match="can't be used"):
        asyncio.run(Api.connect({"KUBECONFIG": str(tmp_path / "config")}))


@in_loop
async def test_an_answer_is_its_body(tmp_path: Path) -> None:
    server = ApiServer()
    server.create(pod("a"))
    async with server, connected(server, tmp_path) as api:
        assert b'"name":"a"' in await api.request("GET", f"{PODS}/a")


@pytest.mark.parametrize(
    ("status", "body", "reason", "message"),
    [
        (b"404 Not Found", b'{"reason": "NotFound", "message": "pods \\"x\\" not found"}', "NotFound", "not found"),
        (b"404 Not Found", b"404 page not found\n", "", "404 page not found"),
        (b"503 Service Unavailable", b"<html>proxy</html>", "", "<html>"),
        (b"500 Internal Server Error", b"", "", "Internal Server Error"),
        (b"403 Forbidden", b'{"reason": 7}', "", "reason"),
    ],
    ids=["a Status", "plain text", "a page of a proxy", "nothing", "a Status of wrong types"],
)
@in_loop
async def test_a_refusal_is_an_error_with_what_was_said(
    tmp_path: Path, status: bytes, body: bytes, reason: str, message: str
) -> None:
    wire = b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)
    async with answering(tmp_path, wire) as api:
        with pytest.raises(ApiError) as raised:
            await api.request("GET", PODS)
    assert (raised.value.status, raised.value.reason) == (int(status[:3]), reason)
    assert message in raised.value.message


@pytest.mark.parametrize(("asked", "wait_s"), [("7", 7.0), ("864000", 60.0), ("9" * 400, 60.0), ("soon", None)])
@in_loop
async def test_the_server_may_say_when_to_come_again(tmp_path: Path, asked: str, wait_s: float | None) -> None:
    wire = f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {asked}\r\nContent-Length: 0\r\n\r\n".encode()
    async with answering(tmp_path, wire) as api:
        with pytest.raises(ApiError) as raised:
            await api.request("GET", PODS)
    assert raised.value.retry_after_s == wait_s


@pytest.mark.parametrize("answer", [(), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), (b"SMTP ready\r\n",)])
@in_loop
async def test_no_whole_answer_is_no_status(tmp_path: Path, answer: tuple[bytes, ...]) -> None:
    async with answering(tmp_path, *answer) as api:
        with pytest.raises(ApiError) as raised:
            await api.request("GET", PODS, timeout_s=0.2)
    assert raised.value.status == 0
    assert (raised.value.reason == "Timeout") == (answer == ())


@in_loop
async def test_lines_are_whole_however_they_arrive(tmp_path: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    async with answering(tmp_path, head, b"on", b"e\ntwo\nth", b"ree\nlast") as api:
        lines = [line async for line in api.lines(PODS, query={"watch": "true"}, silent_s=5)]
    assert lines == [b"one", b"two", b"three", b"last"]


@in_loop
async def test_silence_of_a_watch_is_told_as_such(tmp_path: Path) -> None:
    async with answering(tmp_path) as api:
        with pytest.raises(ApiError) as raised:
            _ = [line async for line in api.lines(PODS, query={}, silent_s=0.1)]
    assert (raised.value.status, raised.value.reason) == (0, "Timeout")


@in_loop
async def test_a_token_that_is_refused_is_read_again(tmp_path: Path) -> None:
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    server = ApiServer(rbac={"new": ("epp", rules)})
    async with server, connected(server, tmp_path, token="old") as api:
        server.kubeconfig(tmp_path / "kubeconfig", token="new")
        with pytest.raises(ApiError) as raised:
            await api.request("GET", PODS)
        assert raised.value.status == 401
        assert b'"items"' in await api.request("GET", PODS)


@in_loop
async def test_credentials_that_vanish_leave_those_in_use(tmp_path: Path) -> None:
    server = ApiServer(rbac={"new": ("epp", [])})
    async with server, connected(server, tmp_path, token="old") as api:
        (tmp_path / "kubeconfig").unlink()
        for _ in range(2):
            with pytest.raises(ApiError) as raised:
                await api.request("GET", PODS)
            assert raised.value.status == 401
