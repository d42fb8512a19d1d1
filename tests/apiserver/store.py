"""Objects, their history and who follows it: what etcd and the watch cache are to the real server."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tests.apiserver.errors import expired
from tests.apiserver.kinds import Kind

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace ("" where there is none) and name."""
ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one object. `content` is never changed: take `copy()`."""

    kind: Kind
    content: Object
    rest: bytes
    """Its JSON without kind and apiVersion, which begins with `{`."""
    revision: int

    @property
    def json(self) -> bytes:
        return self.kind.head + self.rest[1:]

    @property
    def item(self) -> bytes:
        """Its JSON in a list: built-in kinds leave out there what the list's kind says."""
        return self.json if self.kind.custom else self.rest

    @property
    def key(self) -> Key:
        return key_of(self.content)

    def copy(self) -> Object:
        decoded: Object = msgspec.json.decode(self.json)
        return decoded


@dataclass(frozen=True, slots=True)
class Change:
    """One write. A deletion's `after` is the last state with the deletion's revision."""

    revision: int
    type: ChangeType
    after: Stored
    before: Stored | None


class Watcher:
    """One stream's changes that it has not sent yet."""

    def __init__(self, limit: int) -> None:
        self.changes: deque[Change] = deque()
        self.woken = asyncio.Event()
        self.closed = False
        self._limit = limit

    def push(self, change: Change) -> None:
        """A stream that leaves too much unread is closed, as the real server does with slow readers."""
        if self.closed:
            return
        self.changes.append(change)
        if len(self.changes) > self._limit:
            self.changes.clear()
            self.closed = True
        self.woken.set()

    def close(self) -> None:
        """What is not sent yet still is."""
        self.closed = True
        self.woken.set()


class Bucket:
    """All objects of one kind."""

    def __init__(self, kind: Kind, history: int) -> None:
        self.kind = kind
        self.objects: dict[Key, Stored] = {}
        self.keys: list[Key] = []
        self.log: deque[Change] = deque()
        self.compacted = 0
        """Changes up to this revision are forgotten."""
        self.watchers: set[Watcher] = set()
        self._history = history

    def record(self, change: Change) -> None:
        key = change.after.key
        if change.type == "DELETED":
            del self.objects[key]
            del self.keys[bisect_left(self.keys, key)]
        else:
            if change.type == "ADDED":
                insort(self.keys, key)
            self.objects[key] = change.after
        self.log.append(change)
        if len(self.log) > self._history:
            self.compacted = self.log.popleft().revision
        for watcher in self.watchers:
            watcher.push(change)

    def since(self, revision: int) -> list[Change]:
        """Changes after a revision; raises 410 where they are forgotten."""
        if revision < self.compacted:
            raise expired(revision, self.compacted)
        taken: list[Change] = []
        for change in reversed(self.log):
            if change.revision <= revision:
                break
            taken.append(change)
        return taken[::-1]

    def at(self, revision: int) -> dict[Key, Stored]:
        """The objects as they were at a revision; raises 410 where that is forgotten."""
        objects = dict(self.objects)
        for change in reversed(self.since(revision)):
            if change.before is None:
                objects.pop(change.after.key, None)
            else:
                objects[change.after.key] = change.before
        return objects

    def compact(self, revision: int) -> None:
        self.log.clear()
        self.compacted = revision

    def follow(self) -> Watcher:
        watcher = Watcher(max(self._history, 100))
        self.watchers.add(watcher)
        return watcher


class Store:
    """One revision counter over the buckets of all kinds. Synchronous: no change is seen half done."""

    def __init__(self, history: int) -> None:
        self.revision = 1
        self._history = history
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def install(self, kind: Kind) -> None:
        known = self._buckets.get((kind.group, kind.plural))
        if known is not None:
            known.kind = kind
            return
        bucket = Bucket(kind, self._history)
        bucket.compacted = self.revision
        self._buckets[kind.group, kind.plural] = bucket

    def uninstall(self, kind: Kind) -> None:
        """Its objects are deleted, its watches end."""
        bucket = self._buckets[kind.group, kind.plural]
        for stored in list(bucket.objects.values()):
            self.remove(stored)
        for watcher in bucket.watchers:
            watcher.close()
        del self._buckets[kind.group, kind.plural]

    @property
    def kinds(self) -> list[Kind]:
        return [bucket.kind for bucket in self._buckets.values()]

    @property
    def buckets(self) -> Iterable[Bucket]:
        return self._buckets.values()

    def bucket(self, kind: Kind) -> Bucket:
        return self._buckets[kind.group, kind.plural]

    def unfollow(self, kind: Kind, watcher: Watcher) -> None:
        if bucket := self._buckets.get((kind.group, kind.plural)):
            bucket.watchers.discard(watcher)

    def find(self, kind: Kind, key: Key) -> Stored | None:
        return self.bucket(kind).objects.get(key)

    def put(self, kind: Kind, content: Object) -> Stored:
        """Write a whole object, new or not; `content` belongs to the store from here on."""
        before = self.find(kind, key_of(content))
        after = self._stored(kind, content)
        change = Change(after.revision, "MODIFIED" if before else "ADDED", after, before)
        self.bucket(kind).record(change)
        return after

    def remove(self, stored: Stored) -> Stored:
        """Its last state, which carries the revision of the deletion."""
        content = stored.content | {"metadata": dict(stored.content["metadata"])}
        gone = self._stored(stored.kind, content)
        self.bucket(stored.kind).record(Change(gone.revision, "DELETED", gone, stored))
        return gone

    def _stored(self, kind: Kind, content: Object) -> Stored:
        self.revision += 1
        content["metadata"]["resourceVersion"] = str(self.revision)
        rest = {key: value for key, value in content.items() if key not in {"kind", "apiVersion"}}
        return Stored(kind, content, _encode(rest), self.revision)

    def compact(self) -> None:
        for bucket in self.buckets:
            bucket.compact(self.revision)

    @property
    def watchers(self) -> list[Watcher]:
        return [watcher for bucket in self.buckets for watcher in bucket.watchers]


def key_of(content: Object) -> Key:
    metadata = content["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
