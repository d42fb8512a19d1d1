"""Objects as clients ask to see them: whole, their metadata only, or as rows of the Table that kubectl prints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from tests.apiserver.errors import not_acceptable
from tests.apiserver.kinds import Column, Kind
from tests.apiserver.reads import Page
from tests.apiserver.store import Object, Stored

_TABLES = {"v1", "v1beta1"}
NAME = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}


@dataclass
class View:
    """How one request wants its objects."""

    transform: str = ""
    """"" for whole objects, or Table, or PartialObjectMetadata."""
    version: str = "v1"
    include: str = "Metadata"
    now: float = 0.0
    _told: bool = field(default=False, init=False)
    """A watch tells the columns once."""

    def one(self, stored: Stored) -> bytes:
        if self.transform == "Table":
            told, self._told = self._told, True
            return msgspec.json.encode(
                self._table(stored.kind, [stored], {"resourceVersion": str(stored.revision)}, told)
            )
        if self.transform:
            return msgspec.json.encode(self._partial(stored.content))
        return stored.json

    def many(self, kind: Kind, page: Page) -> bytes:
        if self.transform == "Table":
            return msgspec.json.encode(self._table(kind, page.items, page.metadata, False))
        if self.transform:
            items = [self._partial(stored.content) for stored in page.items]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": f"meta.k8s.io/{self.version}"}
            return msgspec.json.encode(head | {"metadata": page.metadata, "items": items})
        return page.json(kind)

    def _partial(self, content: Object) -> Object:
        head = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{self.version}"}
        return head | {"metadata": content["metadata"]}

    def _table(self, kind: Kind, items: Iterable[Stored], metadata: Object, told: bool) -> Object:
        columns = [NAME, *(_definition(column) for column in kind.columns)]
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{self.version}",
            "metadata": metadata,
            "columnDefinitions": None if told else columns,
            "rows": [self._row(kind, stored) for stored in items],
        }

    def _row(self, kind: Kind, stored: Stored) -> Object:
        cells = [stored.key[1], *(cell(column, stored.content, self.now) for column in kind.columns)]
        shown = {"None": None, "Object": stored.content}.get(self.include, self._partial(stored.content))
        return {"cells": cells} | ({"object": shown} if shown else {})


def view(accept: str, query: Mapping[str, str], now: float) -> View:
    """The first form in a header `Accept` that this server has; raises 406."""
    for choice in (accept or "*/*").split(","):
        kind, *rest = (part.strip() for part in choice.split(";"))
        wishes = dict(part.partition("=")[::2] for part in rest)
        transform = wishes.get("as", "").removesuffix("List")
        if kind not in {"application/json", "*/*", "application/*"}:
            continue
        if transform in {"Table", "PartialObjectMetadata"} and wishes.get("v") in _TABLES:
            return View(transform, wishes["v"], query.get("includeObject", "Metadata"), now)
        if not transform:
            return View(now=now)
    raise not_acceptable()


def _definition(column: Column) -> Object:
    return {"name": column.name, "type": column.type, "format": "", "description": "", "priority": column.priority}


def cell(column: Column, content: Object, now: float) -> Any:
    name, _, argument = column.path.partition(":")
    if name in _COMPUTED:
        return _COMPUTED[name](content, argument)
    found = _at(content, column.path)
    if column.path == "age" or column.type == "date":
        return age(_at(content, "metadata.creationTimestamp") if column.path == "age" else found, now)
    if found is None:
        return 0 if column.type == "integer" else "<none>"
    return found if isinstance(found, int | float | str) else str(found)


def age(stamp: str | None, now: float) -> str:
    """As kubectl tells ages, coarsely."""
    if not stamp:
        return "<unknown>"
    seconds = int(now - datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if seconds < 7200:
        return f"{seconds // 60}m"
    return f"{seconds // 3600}h" if seconds < 172800 else f"{seconds // 86400}d"


def _at(content: Any, path: str) -> Any:
    for step in re.split(r"\.", path):
        content = content.get(step) if isinstance(content, dict) else None
    return content


def _ready_containers(content: Object, _: str) -> str:
    ready = sum(bool(each.get("ready")) for each in _at(content, "status.containerStatuses") or ())
    return f"{ready}/{len(_at(content, 'spec.containers') or ())}"


def _pod_status(content: Object, _: str) -> str:
    if "deletionTimestamp" in content["metadata"]:
        return "Terminating"
    return str(_at(content, "status.reason") or _at(content, "status.phase") or "Unknown")


def _restarts(content: Object, _: str) -> str:
    return str(sum(each.get("restartCount", 0) for each in _at(content, "status.containerStatuses") or ()))


def _ports(content: Object, _: str) -> str:
    ports = _at(content, "spec.ports") or ()
    return ",".join(f"{each['port']}/{each.get('protocol', 'TCP')}" for each in ports) or "<none>"


def _ready_replicas(content: Object, _: str) -> str:
    return f"{_at(content, 'status.readyReplicas') or 0}/{_at(content, 'spec.replicas') or 0}"


def _condition(content: Object, wanted: str) -> str:
    states = {each.get("type"): each.get("status") for each in _at(content, "status.conditions") or ()}
    return {"True": wanted, "False": f"Not{wanted}"}.get(states.get(wanted), "Unknown")


def _count(content: Object, path: str) -> str:
    return str(len(_at(content, path) or ()))


_COMPUTED: dict[str, Callable[[Object, str], str]] = {
    "condition": _condition,
    "count": _count,
    "pod-status": _pod_status,
    "ports": _ports,
    "ready-containers": _ready_containers,
    "ready-replicas": _ready_replicas,
    "restarts": _restarts,
}
