"""Roles and bindings that are stored as objects, read as rules of a user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.apiserver.kinds import BUILT_IN
from tests.apiserver.rbac import Rule, User
from tests.apiserver.store import Object, Store

_KINDS = {kind.kind: kind for kind in BUILT_IN}


def bound_rules(store: Store, user: User) -> list[Rule]:
    """A RoleBinding's rules hold in its namespace, a ClusterRoleBinding's everywhere."""
    return [
        rule | ({"namespaces": [binding["metadata"]["namespace"]]} if "namespace" in binding["metadata"] else {})
        for binding in _bindings(store)
        if any(_is(subject, binding, user) for subject in binding.get("subjects") or ())
        for rule in _rules(store, binding)
    ]


def _bindings(store: Store) -> Iterator[Object]:
    for name in ("RoleBinding", "ClusterRoleBinding"):
        for stored in store.bucket(_KINDS[name]).objects.values():
            yield stored.content


def _is(subject: dict[str, Any], binding: Object, user: User) -> bool:
    name = subject.get("name", "")
    if subject.get("kind") == "ServiceAccount":
        namespace = subject.get("namespace") or binding["metadata"].get("namespace", "")
        return user.name == f"system:serviceaccount:{namespace}:{name}"
    return name in user.groups if subject.get("kind") == "Group" else name == user.name


def _rules(store: Store, binding: Object) -> list[Rule]:
    """None where the role does not exist: such a binding gives nothing."""
    role = binding["roleRef"]
    kind = _KINDS[role["kind"]]
    namespace = binding["metadata"].get("namespace", "") if kind.namespaced else ""
    found = store.find(kind, (namespace, role["name"]))
    return list(found.content.get("rules") or ()) if found else []
