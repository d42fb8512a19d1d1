"""For tests of the server itself: a plain HTTP client, and a decorator that gives a test both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from tests.apiserver.server import ApiServer

PATIENCE_S = 10.0
Case = Callable[[ApiServer, "Client"], Awaitable[None]]


@dataclass(frozen=True)
class Answer:
    """A whole response."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def names(self) -> list[str]:
        """Of a list's items."""
        return [item["metadata"]["name"] for item in self.json["items"]]

    @property
    def failure(self) -> tuple[int, str, str]:
        """Code, reason and message of a Status."""
        status = self.json
        assert (status["kind"], status["status"], status["code"]) == ("Status", "Failure", self.status)
        return self.status, status.get("reason", ""), status["message"]


class Events:
    """A watch that is open."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        """The next event; raises EOFError at the end of the stream."""
        decoded: dict[str, Any] = msgspec.json.decode(await self.line())
        return decoded

    async def line(self) -> bytes:
        line = await self.response.content.readline()
        if not line:
            raise EOFError
        return line

    async def told(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events."""
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]

    async def rest(self) -> list[dict[str, Any]]:
        """All events until the stream ends."""
        return [msgspec.json.decode(line) async for line in self.response.content]


class Client:
    """Talks to one server."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """`query`, `headers`, `token` and `form` (content type) as options; a body that is not bytes becomes JSON."""
        headers = {"Content-Type": options.get("form", "application/json")} if body is not None else {}
        if token := options.get("token"):
            headers["Authorization"] = f"Bearer {token}"
        content = body if isinstance(body, bytes | None) else msgspec.json.encode(body)
        headers |= options.get("headers", {})
        asked = self._session.request(method, path, data=content, headers=headers, params=options.get("query"))
        async with asked as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **query: str) -> Answer:
        return await self.ask("GET", path, query=query)

    @asynccontextmanager
    async def watch(
        self, path: str, *, headers: Mapping[str, str] | None = None, **query: str
    ) -> AsyncIterator[Events]:
        async with self._session.get(path, params={"watch": "1"} | query, headers=headers) as response:
            yield Events(response)


def _session(server: ApiServer) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(server.url)


def served(**options: Any) -> Callable[[Case], Callable[[], None]]:
    """Runs an async test with a server of its own, started with these options, and a client of it."""

    def decorate(case: Case) -> Callable[[], None]:
        async def run() -> None:
            async with asyncio.timeout(PATIENCE_S), ApiServer(**options) as server, _session(server) as session:
                await case(server, Client(session))

        def test() -> None:
            asyncio.run(run())

        test.__name__, test.__doc__, test.__module__ = case.__name__, case.__doc__, case.__module__
        return test

    return decorate


def pod(name: str, namespace: str = "llm", **labels: str) -> dict[str, Any]:
    """A running pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node-a", "containers": [{"name": "main", "image": "vllm"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


def config_map(name: str, namespace: str = "llm", **content: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": content}


PODS = "/api/v1/namespaces/llm/pods"
MAPS = "/api/v1/namespaces/llm/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/llm/leases"
