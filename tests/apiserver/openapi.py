"""As little OpenAPI as clients need: no schemas, but the word that validation is done here and that dry runs work."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from tests.apiserver.discovery import VERSION
from tests.apiserver.errors import PageNotFound
from tests.apiserver.kinds import Kind

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""Clients ask for `v2@v1.0`, which is no valid media type: those that parse the answer's fail on it."""
_TITLE = {"title": "Kubernetes", "version": VERSION["gitVersion"]}
_PARAMETERS = [
    {"name": name, "in": "query", "schema": {"type": "string"}}
    for name in ("dryRun", "fieldManager", "fieldValidation")
]


def answer(request: web.BaseRequest, kinds: list[Kind]) -> web.Response:
    """/openapi/v2 for old clients, /openapi/v3 and its parts for those since 1.24; raises PageNotFound."""
    path = request.path.removeprefix("/openapi/").rstrip("/")
    if path == "v2":
        return _version_2("protobuf" in request.headers.get("Accept", ""), kinds)
    if path == "v3":
        parts = {part: {"serverRelativeURL": f"/openapi/v3/{part}?hash=0"} for part in _parts(kinds)}
        return _json({"paths": parts})
    if (part := path.removeprefix("v3/")) in _parts(kinds):
        return _json(_version_3([kind for kind in kinds if _part(kind) == part]))
    raise PageNotFound


def _part(kind: Kind) -> str:
    return f"apis/{kind.api_version}" if kind.group else f"api/{kind.version}"


def _parts(kinds: list[Kind]) -> list[str]:
    return list(dict.fromkeys(map(_part, kinds)))


def _version_3(kinds: list[Kind]) -> dict[str, Any]:
    paths = {f"{kind.path('{namespace}' if kind.namespaced else '')}/{{name}}": _operations(kind) for kind in kinds}
    return {"openapi": "3.0.0", "info": _TITLE, "paths": paths, "components": {"schemas": {}}}


def _operations(kind: Kind) -> dict[str, Any]:
    """One is enough: kubectl reads from it which query parameters a kind understands."""
    operation = {
        "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "parameters": _PARAMETERS,
        "responses": {"200": {"description": "OK"}},
    }
    return {"patch": operation}


def _version_2(protobuf: bool, kinds: list[Kind]) -> web.Response:
    if not protobuf:
        paths = {kind.path(): {} for kind in kinds}
        return _json({"swagger": "2.0", "info": _TITLE, "paths": paths, "definitions": {}})
    info = _string(1, _TITLE["title"]) + _string(2, _TITLE["version"])
    document = _string(1, "2.0") + _bytes(2, info) + _bytes(8, b"")
    return web.Response(body=document, headers={"Content-Type": _V2_PROTOBUF})


def _string(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _bytes(number: int, content: bytes) -> bytes:
    """One length-delimited field of a protobuf message; short ones only."""
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def _json(content: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), headers={"Content-Type": "application/json"})
