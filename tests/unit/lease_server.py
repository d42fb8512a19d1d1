"""The leases of one namespace over an interface like epp.kube.client.Api, without sockets and with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from epp.kube import ApiError

PATH = "/apis/coordination.k8s.io/v1/namespaces/town/leases"
NAME = "epp-town-pool.llm-d.ai"


@dataclass
class LeaseServer:
    """One lease at most. `refuse` = status by method ("WATCH" too); `silent` = no answer at all."""

    lease: dict[str, Any] | None = None  # any JSON
    refuse: dict[str, int] = field(default_factory=dict)
    silent: bool = False
    answer_s: float = 0.001
    asked: list[tuple[float, str]] = field(default_factory=list)
    _version: int = 100
    _watchers: list[asyncio.Queue[bytes]] = field(default_factory=list)

    def client(self) -> Client:
        return Client(self)

    def put(self, spec: object, **metadata: object) -> dict[str, Any]:
        """Somebody writes this, a picker or kubectl."""
        self._version += 1
        kind = "ADDED" if self.lease is None else "MODIFIED"
        kept = {"name": NAME, "namespace": "town"} if self.lease is None else self.lease["metadata"]
        self.lease = {
            "kind": "Lease",
            "metadata": {**kept, **metadata, "resourceVersion": str(self._version)},
            "spec": spec,
        }
        self._tell(kind, self.lease)
        return self.lease

    def delete(self) -> None:
        assert self.lease is not None
        self._version += 1
        self._tell("DELETED", {**self.lease, "metadata": {"resourceVersion": str(self._version)}})
        self.lease = None

    @property
    def holder(self) -> object:
        return None if self.lease is None else self.lease["spec"].get("holderIdentity")

    def break_watches(self) -> None:
        """As an API server does that has forgotten what came since."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        self._tell("ERROR", status)

    def end_watches(self) -> None:
        for events in self._watchers:
            events.put_nowait(b"")

    def _tell(self, kind: str, lease: object) -> None:
        for events in self._watchers:
            events.put_nowait(msgspec.json.encode({"type": kind, "object": lease}))

    def answer(self, method: str, path: str, body: bytes | None) -> bytes:
        sent = None if body is None else msgspec.json.decode(body)
        if method == "POST":
            assert path == PATH
            if self.lease is not None:
                raise ApiError(409, "it exists", "AlreadyExists")
            return msgspec.json.encode(self.put(sent["spec"]))
        assert path == f"{PATH}/{NAME}"
        if self.lease is None:
            raise ApiError(404, "no such lease", "NotFound")
        if method == "GET":
            return msgspec.json.encode(self.lease)
        if sent["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "the object has been modified", "Conflict")
        return msgspec.json.encode(self.put(sent["spec"]))

    async def events(self) -> AsyncIterator[bytes]:
        mine: asyncio.Queue[bytes] = asyncio.Queue()
        if self.lease is not None:
            mine.put_nowait(msgspec.json.encode({"type": "ADDED", "object": self.lease}))
        self._watchers.append(mine)
        try:
            while line := await mine.get():
                await asyncio.sleep(self.answer_s)
                yield line
        finally:
            self._watchers.remove(mine)


@dataclass
class Client:
    """What one process sees of the server; `cut_off` as if its cable were pulled."""

    server: LeaseServer
    cut_off: bool = False

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> bytes:
        server = self.server
        server.asked.append((asyncio.get_running_loop().time(), method))
        if self.cut_off or server.silent:
            await asyncio.sleep(timeout_s)
            raise ApiError(0, f"no answer within {timeout_s:g} s")
        await asyncio.sleep(server.answer_s)
        if status := server.refuse.get(method):
            raise ApiError(status, "refused", "Forbidden" if status == 403 else "")
        answer = server.answer(method, path, body)
        await asyncio.sleep(server.answer_s)
        return answer

    async def lines(self, path: str, *, query: Mapping[str, str], silent_s: float) -> AsyncIterator[bytes]:
        server = self.server
        server.asked.append((asyncio.get_running_loop().time(), "WATCH"))
        assert query["fieldSelector"] == f"metadata.name={NAME}"
        if status := server.refuse.get("WATCH"):
            raise ApiError(status, "refused", "Forbidden" if status == 403 else "")
        async for line in server.events():
            if not self.cut_off:
                yield line
