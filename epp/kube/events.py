"""Lines of a watch and pages of a list, from bytes to records. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from epp.kube import UNREADABLE, ApiError
from epp.kube.records import Event, Failure, ListMeta, Page, RawEvent, RawPage, Record

R = TypeVar("R", bound=Record)
LONGEST_VERSION = 40
"""Digits; etcd counts to 2^63."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An object that does not have the form its kind should have."""

    name: str
    version: str
    problem: str


@dataclass(frozen=True, slots=True)
class Seen(Generic[R]):
    """What one line told. `object` is None for a bookmark, which tells only how far the watch has come."""

    version: str
    object: R | Broken | None
    gone: bool = False


class Decoder(Generic[R]):
    """Decodes lists and watches of one kind. ApiError = what came is no answer of an API server, or says Expired."""

    def __init__(self, record: type[R]) -> None:
        # Types known only at run time: mypy can't follow.
        self._record: msgspec.json.Decoder[R] = msgspec.json.Decoder(record)
        self._page: msgspec.json.Decoder[Page[R]] = msgspec.json.Decoder(Page[record])  # type: ignore[valid-type]
        self._event: msgspec.json.Decoder[Event[R]] = msgspec.json.Decoder(Event[record])  # type: ignore[valid-type]

    def page(self, body: bytes) -> tuple[ListMeta, list[R | Broken]]:
        """A page of a list."""
        try:
            page = self._page.decode(body)
            return page.metadata, list(page.items or ())
        except UNREADABLE:
            pass  # one object of 500 may be broken: below each is decoded by itself
        try:
            raw = msgspec.json.decode(body, type=RawPage)
        except UNREADABLE as error:
            raise ApiError(0, f"a list that can't be read: {error}", "Garbled") from None
        return raw.metadata, [self._object(one) for one in raw.items or ()]

    def seen(self, line: bytes) -> Seen[R] | None:
        """What a line of a watch tells; None for an object without a name. Raises ApiError for an ERROR event."""
        try:
            event = self._event.decode(line)
            kind, found = event.type, event.object
            version = found.metadata.resource_version
        except UNREADABLE:
            return self._odd(line)
        if kind in {"BOOKMARK", "ERROR"}:
            return self._odd(line)
        return Seen(version, found, gone=kind == "DELETED") if found.metadata.name else None

    def _odd(self, line: bytes) -> Seen[R] | None:
        """Bookmarks, errors and broken objects."""
        try:
            event = msgspec.json.decode(line, type=RawEvent)
            if event.type == "ERROR":
                failure = msgspec.json.decode(event.object, type=Failure)
                raise ApiError(failure.code, failure.message, failure.reason)
            if event.type == "BOOKMARK":
                return Seen(_identity(event.object)[1], None)
        except UNREADABLE as error:
            raise ApiError(0, f"a line that can't be read: {error}", "Garbled") from None
        found = self._object(event.object)
        if not isinstance(found, Broken):
            return Seen(found.metadata.resource_version, found, gone=event.type == "DELETED")
        return Seen(found.version, found, gone=event.type == "DELETED") if found.name else None

    def _object(self, raw: msgspec.Raw) -> R | Broken:
        try:
            return self._record.decode(raw)
        except UNREADABLE as error:
            name, version = _identity(raw)
            return Broken(name, version, str(error))


class _Named(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Identified(msgspec.Struct, frozen=True):
    metadata: _Named = _Named()


def _identity(raw: msgspec.Raw) -> tuple[str, str]:
    """Name and resourceVersion of an object whose other parts can't be read."""
    try:
        found = msgspec.json.decode(raw, type=_Identified).metadata
    except UNREADABLE:
        return "", ""
    return found.name, found.resource_version


def by_name(objects: list[R | Broken]) -> Iterator[tuple[str, R | Broken]]:
    """Objects with their names, those without one left out."""
    for found in objects:
        name = found.name if isinstance(found, Broken) else found.metadata.name
        if name:
            yield name, found


def older(version: str, than: str) -> bool:
    """Whether a resourceVersion is surely of a former state; versions that are no numbers tell nothing."""
    return _counts(version) and _counts(than) and int(version) < int(than)


def _counts(version: str) -> bool:
    return version.isdecimal() and len(version) <= LONGEST_VERSION
