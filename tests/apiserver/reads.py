"""Lists: by selector, at a revision, in pages that show one state however long the client takes."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.apiserver.errors import bad_request, expired_continue, expired_list, invalid, too_large_version
from tests.apiserver.kinds import Kind
from tests.apiserver.selectors import Test, both, fields, labels
from tests.apiserver.store import Bucket, Key, Store, Stored


@dataclass(frozen=True)
class Page:
    """Some or all of a list."""

    revision: int
    items: list[Stored]
    after: str = ""
    """Continue token, "" on the last page."""
    remaining: int | None = None
    """Not told where a selector makes it unknown."""

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.after:
            metadata["continue"] = self.after
            if self.remaining is not None:
                metadata["remainingItemCount"] = self.remaining
        return metadata

    def json(self, kind: Kind) -> bytes:
        head = f'{{"kind":"{kind.kind}List","apiVersion":"{kind.api_version}","metadata":'.encode()
        return head + msgspec.json.encode(self.metadata) + b',"items":[' + b",".join(s.item for s in self.items) + b"]}"


META = "meta.k8s.io/v1"


class Token(msgspec.Struct):
    """A continue token, as the real server writes it."""

    v: str
    rv: int
    start: str

    def text(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def selected(kind: Kind, query: Mapping[str, str]) -> Test | None:
    return both(labels(query.get("labelSelector", "")), fields(kind, query.get("fieldSelector", "")))


def page(store: Store, kind: Kind, namespace: str, query: Mapping[str, str], *, expire: bool = False) -> Page:
    """One list request. `expire`: any continue token is too old."""
    bucket, wanted = store.bucket(kind), selected(kind, query)
    limit = number(kind, "limit", query.get("limit", ""))
    if query.get("resourceVersion") == "0":
        limit = 0  # as the real server ignores it there
    start, revision = ("", ""), store.revision
    objects, keys = bucket.objects, bucket.keys
    if token := query.get("continue", ""):
        start, at = _resume(query, token, expire=expire)
        if at >= 0:
            objects, revision = _snapshot(bucket, at, start), at
            keys = sorted(objects)
    elif (at := _version(store, kind, query)) is not None:
        objects, revision = bucket.at(at), at
        keys = sorted(objects)
    return _cut(_range(objects, keys, namespace, start), wanted, limit, revision)


def _resume(query: Mapping[str, str], token: str, *, expire: bool) -> tuple[Key, int]:
    """The key to go on from and the revision to show; -1 for what is stored now."""
    if query.get("resourceVersion", "") not in {"", "0"}:
        raise bad_request("specifying resource version is not allowed when using continue")
    decoded = _decoded(token)
    namespace, _, name = decoded.start.partition("/")
    if expire:
        raise expired_continue(Token(META, -1, decoded.start).text())
    return (namespace, name), decoded.rv


def _decoded(token: str) -> Token:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=Token)
    except (binascii.Error, ValueError, msgspec.DecodeError) as why:
        raise bad_request(f"continue key is not valid: {why}") from None


def _snapshot(bucket: Bucket, revision: int, start: Key) -> dict[Key, Stored]:
    if revision < bucket.compacted:
        raise expired_continue(Token(META, -1, "/".join(start)).text())
    return bucket.at(revision)


def _version(store: Store, kind: Kind, query: Mapping[str, str]) -> int | None:
    """The revision a list must show; None where what is stored now will do."""
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match and not text:
        why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        raise invalid(LIST_OPTIONS, "", "resourceVersionMatch", why)
    if match not in {"", "Exact", "NotOlderThan"}:
        why = f'Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        raise invalid(LIST_OPTIONS, "", "resourceVersionMatch", why)
    if match == "Exact" and text == "0":
        why = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        raise invalid(LIST_OPTIONS, "", "resourceVersionMatch", why)
    wanted = number(kind, "resourceVersion", text)
    if wanted > store.revision:
        raise too_large_version(wanted, store.revision)
    exact = match == "Exact" or (not match and wanted > 0 and query.get("limit", "0") not in {"", "0"})
    if exact and wanted < store.bucket(kind).compacted:
        raise expired_list()
    return wanted if exact else None


LIST_OPTIONS = Kind("meta.k8s.io", "v1", "ListOptions", "listoptions")


def number(kind: Kind, field: str, text: str) -> int:
    """0 where nothing is said."""
    if not text:
        return 0
    if not text.isdigit():
        why = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
        raise invalid(kind, "", field, why)
    return int(text)


def _range(objects: dict[Key, Stored], keys: list[Key], namespace: str, start: Key) -> list[Stored]:
    first = bisect_left(keys, max(start, (namespace, "")))
    last = bisect_left(keys, (namespace + "\0", "")) if namespace else len(keys)
    return [objects[key] for key in keys[first:last]]


def _cut(found: list[Stored], wanted: Test | None, limit: int, revision: int) -> Page:
    """With a selector the last page may be empty: the server stops at the limit without looking further."""
    taken: list[Stored] = []
    for at, stored in enumerate(found, 1):
        if wanted is None or wanted(stored.content):
            taken.append(stored)
        if limit and len(taken) == limit and at < len(found):
            token = Token(META, revision, "/".join(stored.key) + "\0").text()
            return Page(revision, taken, token, None if wanted else len(found) - at)
    return Page(revision, taken)
