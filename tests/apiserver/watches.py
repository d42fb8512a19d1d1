"""Watch streams: a line of JSON a change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from tests.apiserver.errors import ApiError, invalid
from tests.apiserver.faults import Faults
from tests.apiserver.kinds import Kind
from tests.apiserver.reads import LIST_OPTIONS, number, selected
from tests.apiserver.route import true
from tests.apiserver.selectors import Test
from tests.apiserver.store import Change, Store, Stored, Watcher
from tests.apiserver.tables import View

TIMEOUT_S = 1800


@dataclass
class Stream:
    """One watch request: what it selects and where it stands."""

    store: Store
    kind: Kind
    namespace: str
    query: Mapping[str, str]
    view: View
    wanted: Test | None = None
    version: int = 0

    def __post_init__(self) -> None:
        self.wanted = selected(self.kind, self.query)
        self.version = number(self.kind, "resourceVersion", self.query.get("resourceVersion", ""))
        _check_options(self.query)

    def first(self) -> list[bytes]:
        """What is sent at once: the state where no version was named, else the changes since; raises 410."""
        bucket = self.store.bucket(self.kind)
        if self.version == 0:
            stored = (bucket.objects[key] for key in bucket.keys)
            return [self._line("ADDED", each) for each in stored if self._passes(each)]
        return list(self.lines(bucket.since(self.version)))

    def lines(self, changes: Iterable[Change]) -> Iterable[bytes]:
        return (line for change in changes if (line := self._seen(change)))

    def _seen(self, change: Change) -> bytes:
        """The change as this selector sees it; nothing where it sees none."""
        if change.revision <= self.version:
            return b""
        before = change.before is not None and self._passes(change.before)
        after = change.type != "DELETED" and self._passes(change.after)
        if after:
            return self._line("MODIFIED" if before else "ADDED", change.after)
        if not before:
            return b""
        return self._line("DELETED", change.after if change.type == "DELETED" else _last_seen(change))

    def _passes(self, stored: Stored) -> bool:
        if self.namespace and stored.key[0] != self.namespace:
            return False
        return self.wanted is None or self.wanted(stored.content)

    def _line(self, type_: str, stored: Stored) -> bytes:
        return b'{"type":"' + type_.encode() + b'","object":' + self.view.one(stored) + b"}\n"

    def bookmark(self) -> bytes:
        """A version to come back with, in an object that has nothing else."""
        version = max(self.store.revision, self.version)
        metadata = f'"metadata":{{"resourceVersion":"{version}","creationTimestamp":null}}}}}}\n'
        return b'{"type":"BOOKMARK","object":' + self.kind.head + metadata.encode()


def _last_seen(change: Change) -> Stored:
    """The object before it stopped to match, with the version of the change."""
    assert change.before is not None
    content = change.before.copy()
    content["metadata"]["resourceVersion"] = str(change.revision)
    rest = {key: value for key, value in content.items() if key not in {"kind", "apiVersion"}}
    return Stored(change.before.kind, content, msgspec.json.encode(rest), change.revision)


def _check_options(query: Mapping[str, str]) -> None:
    """This server is one without the WatchList feature."""
    if "sendInitialEvents" in query:
        why = "Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"
        raise invalid(LIST_OPTIONS, "", "sendInitialEvents", why)
    if query.get("resourceVersionMatch"):
        why = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        raise invalid(LIST_OPTIONS, "", "resourceVersionMatch", why)


def error_line(error: ApiError) -> bytes:
    return msgspec.json.encode({"type": "ERROR", "object": error.status()}) + b"\n"


def garbage(kind: str, change: Change) -> bytes:
    """A line no client can use: not JSON, or an object whose fields have other types than they should."""
    if kind == "line":
        return b'{"type":"MODIFIED","object":{"kind":\n'
    namespace, name = change.after.key
    metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": "no map", "annotations": [1]}
    metadata["resourceVersion"] = str(change.revision)
    broken = {"metadata": metadata, "spec": "no object", "status": [7]}
    content = {"kind": change.after.kind.kind, "apiVersion": change.after.kind.api_version} | broken
    return msgspec.json.encode({"type": "MODIFIED", "object": content}) + b"\n"


class Sender:
    """Writes one stream until its time is over, it is cut or its client goes."""

    def __init__(self, stream: Stream, watcher: Watcher, faults: Faults, bookmark_s: float) -> None:
        self._stream = stream
        self._watcher = watcher
        self._faults = faults
        self._bookmark_s = bookmark_s if true(stream.query.get("allowWatchBookmarks", "")) else float("inf")
        now = asyncio.get_running_loop().time()
        self._began = now
        self._bookmarked = now
        self._ends = now + (number(stream.kind, "timeoutSeconds", stream.query.get("timeoutSeconds", "")) or TIMEOUT_S)

    async def run(self, response: web.StreamResponse, first: list[bytes]) -> None:
        while True:
            if not self._faults.silent:
                await self._write(response, [*first, *self._due()])
                first = []
            if self._over():
                break
            await self._rest()
        if not self._faults.silent and not self._watcher.closed and self._bookmark_s < float("inf"):
            await response.write(self._stream.bookmark())

    async def _write(self, response: web.StreamResponse, lines: list[bytes]) -> None:
        if lines:
            await response.write(b"".join(lines))

    def _due(self) -> list[bytes]:
        changes = list(self._watcher.changes)
        self._watcher.changes.clear()
        lines = list(self._stream.lines(changes))
        if lines and self._faults.garbage:
            lines.insert(0, garbage(self._faults.garbage, changes[0]))
            self._faults.garbage = None
        now = asyncio.get_running_loop().time()
        if now >= self._bookmarked + self._bookmark_s:
            lines.append(self._stream.bookmark())
            self._bookmarked = now
        return lines

    async def _rest(self) -> None:
        """Until there is something to do: a change, a turned knob, a bookmark or the end."""
        at = min(self._ends, self._drops(), self._bookmarked + self._bookmark_s)
        if self._faults.silent:
            at = min(self._ends, self._drops())
        try:
            async with asyncio.timeout_at(at):
                await self._watcher.woken.wait()
        except TimeoutError:
            pass
        self._watcher.woken.clear()

    def _drops(self) -> float:
        after = self._faults.drop_watches_after_s
        return float("inf") if after is None else self._began + after

    def _over(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._watcher.closed or now >= min(self._ends, self._drops())
