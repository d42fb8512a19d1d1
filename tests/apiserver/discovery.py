"""What the server has: /version, /api, /apis and the lists of resources."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from tests.apiserver.errors import PageNotFound
from tests.apiserver.kinds import Kind

VERSION = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.0",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2025-04-23T00:00:00Z",
    "goVersion": "go1.24.2",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def answer(request: web.BaseRequest, kinds: list[Kind]) -> web.Response:
    body = msgspec.json.encode(document(request.path, kinds))
    return web.Response(body=body, headers={"Content-Type": "application/json"})


def document(path: str, kinds: list[Kind]) -> dict[str, Any]:
    """The discovery document at a path; raises PageNotFound."""
    steps = [step for step in path.split("/") if step]
    match steps:
        case ["version"]:
            return VERSION
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        case ["apis"]:
            groups = [_group(group, kinds) for group in _groups(kinds)]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group] if group in _groups(kinds):
            return {"kind": "APIGroup", "apiVersion": "v1"} | _group(group, kinds)
        case ["api", version]:
            return _resources("", version, kinds)
        case ["apis", group, version]:
            return _resources(group, version, kinds)
    raise PageNotFound


def _groups(kinds: list[Kind]) -> list[str]:
    return list(dict.fromkeys(kind.group for kind in kinds if kind.group))


def _group(group: str, kinds: list[Kind]) -> dict[str, Any]:
    versions = dict.fromkeys((kind.api_version, kind.version) for kind in kinds if kind.group == group)
    listed = [{"groupVersion": api_version, "version": version} for api_version, version in versions]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def _resources(group: str, version: str, kinds: list[Kind]) -> dict[str, Any]:
    own = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    if not own:
        raise PageNotFound
    listed = [entry for kind in own for entry in _entries(kind)]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": own[0].api_version,
        "resources": listed,
    }


def _entries(kind: Kind) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        entry["shortNames"] = list(kind.short)
    status = {"name": f"{kind.plural}/status", "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind}
    return [entry, status | {"verbs": ["get", "patch", "update"]}] if kind.status else [entry]
