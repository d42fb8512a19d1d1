"""What the server has: /version, /api, /apis and the lists of resources, one by one or all in one document."""

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
_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ALL = {"pods", "services", "deployments"}
"""What `kubectl get all` means."""
_STATUS_VERBS = ["get", "patch", "update"]


def answer(request: web.BaseRequest, kinds: list[Kind]) -> web.Response:
    steps = tuple(step for step in request.path.split("/") if step)
    if steps in {("api",), ("apis",)} and _AGGREGATED in request.headers.get("Accept", "").replace(" ", ""):
        groups = [""] if steps == ("api",) else _groups(kinds)
        return _json(_aggregated(groups, kinds), _AGGREGATED)
    return _json(_document(steps, kinds), "application/json")


def _json(content: Any, form: str) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), headers={"Content-Type": form})


def _document(steps: tuple[str, ...], kinds: list[Kind]) -> dict[str, Any]:
    """Raises PageNotFound."""
    if steps in _FIXED:
        return _FIXED[steps]
    match list(steps):
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


_PATHS = ["/api", "/apis", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
_FIXED: dict[tuple[str, ...], dict[str, Any]] = {
    (): {"paths": _PATHS},
    ("version",): VERSION,
    ("api",): {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
}


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
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": own[0].api_version}
    return head | {"resources": listed}


def _entries(kind: Kind) -> list[dict[str, Any]]:
    entry = {"name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind}
    entry |= {"verbs": list(kind.verbs)} | _names(kind)
    status = {"name": f"{kind.plural}/status", "singularName": "", "namespaced": kind.namespaced, "kind": kind.kind}
    return [entry, status | {"verbs": _STATUS_VERBS}] if kind.status else [entry]


def _names(kind: Kind) -> dict[str, Any]:
    """Only what is not empty."""
    names = {"shortNames": list(kind.short), "categories": ["all"] if kind.plural in _ALL else []}
    return {name: listed for name, listed in names.items() if listed}


def _aggregated(groups: list[str], kinds: list[Kind]) -> dict[str, Any]:
    items = [{"metadata": {"name": group}, "versions": _versions(group, kinds)} for group in groups]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _versions(group: str, kinds: list[Kind]) -> list[dict[str, Any]]:
    own = [kind for kind in kinds if kind.group == group]
    return [
        {
            "version": version,
            "freshness": "Current",
            "resources": [_resource(kind) for kind in own if kind.version == version],
        }
        for version in dict.fromkeys(kind.version for kind in own)
    ]


def _resource(kind: Kind) -> dict[str, Any]:
    response = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    resource = {
        "resource": kind.plural,
        "responseKind": response,
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    } | _names(kind)
    status = {"subresource": "status", "responseKind": response, "verbs": _STATUS_VERBS}
    return resource | ({"subresources": [status]} if kind.status else {})
