"""What a request is about, read from its method and path before anything is known of the kinds served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tests.apiserver.selectors import named

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


@dataclass(frozen=True)
class Asked:
    """As the real server's RequestInfo: this is what access is decided by."""

    path: str
    verb: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    """"" for a path that is no resource's."""
    name: str = ""
    subresource: str = ""


def asked(method: str, path: str, query: Mapping[str, str]) -> Asked:
    """The method in lower case is the verb of a path that is no resource's."""
    steps = [step for step in path.split("/") if step]
    other = Asked(path, method.lower())
    if steps[:1] == ["api"] and len(steps) >= 3:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[:1] == ["apis"] and len(steps) >= 4:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        return other
    found = _located(replace(other, group=group, version=version), rest)
    return _with_verb(found, method, query)


def _located(found: Asked, rest: list[str]) -> Asked:
    if rest[0] == "namespaces" and len(rest) > 1:
        found = replace(found, namespace=rest[1])
        if len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
            rest = rest[2:]
    parts = [*rest, "", ""]
    return replace(found, resource=parts[0], name=parts[1], subresource=parts[2])


def _with_verb(found: Asked, method: str, query: Mapping[str, str]) -> Asked:
    verb = _VERBS.get(method, "")
    if found.name:
        return replace(found, verb=verb)
    if verb == "get":
        verb = "watch" if true(query.get("watch", "")) else "list"
    elif verb == "delete":
        verb = "deletecollection"
    if verb in {"list", "watch", "deletecollection"}:
        found = replace(found, name=named(query.get("fieldSelector", "")))
    return replace(found, verb=verb)


def true(text: str) -> bool:
    return text.lower() in {"1", "true"}
