"""Who may do what: a table of tokens, users and rules, plus the Roles and bindings that are stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.apiserver.errors import ApiError, unauthorized
from tests.apiserver.route import Asked

Rule = dict[str, Any]
ANONYMOUS = "system:anonymous"
_ANYBODY = [{"nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"], "verbs": ["get"]}]
_EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
_EVERYWHERE = {"nonResourceURLs": ["*"], "verbs": ["*"]}
_AUTHENTICATED = [
    {"nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"], "verbs": ["get"]},
    {
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        "verbs": ["create"],
    },
    {"apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"]},
]


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    groups: tuple[str, ...]


class Access:
    """The table. None instead of one: everything is allowed to everybody."""

    def __init__(
        self,
        table: Mapping[str, tuple[str, list[Rule]]] | None,
        bound: Callable[[User], list[Rule]] = lambda _: [],
    ) -> None:
        """`bound`: further rules of a user, from objects."""
        self._table = table
        self._bound = bound

    def user(self, authorization: str) -> User:
        """Who a header `Authorization` speaks for; raises 401 for a token nobody has."""
        scheme, _, token = authorization.partition(" ")
        if self._table is None or not authorization:
            return User(ANONYMOUS, ("system:unauthenticated",))
        found = self.holder(token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise unauthorized()
        return found

    def holder(self, token: str) -> User | None:
        if self._table is None or token not in self._table:
            return None
        name = self._table[token][0]
        return User(name, groups_of(name))

    def rules(self, user: User) -> list[Rule]:
        if self._table is None:
            return [_EVERYTHING, _EVERYWHERE]
        own = [rule for name, rules in self._table.values() if name == user.name for rule in rules]
        return [*own, *self._bound(user), *_ANYBODY, *(_AUTHENTICATED if "system:authenticated" in user.groups else ())]

    def allows(self, user: User, wanted: Asked) -> bool:
        if self._table is None or "system:masters" in user.groups:
            return True
        return any(allows(rule, wanted) for rule in self.rules(user))

    def check(self, user: User, wanted: Asked) -> None:
        if not self.allows(user, wanted):
            raise forbidden(user, wanted)


def groups_of(name: str) -> tuple[str, ...]:
    """A service account is in the groups of its namespace and of all."""
    if name.startswith("system:serviceaccount:"):
        namespace = name.split(":")[2]
        return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    return ("system:authenticated",)


def allows(rule: Rule, wanted: Asked) -> bool:
    if not _has(rule.get("verbs", ()), wanted.verb):
        return False
    if not wanted.resource:
        return any(_covers(url, wanted.path) for url in rule.get("nonResourceURLs", ()))
    return (
        _has(rule.get("apiGroups", ()), wanted.group)
        and _has_resource(rule.get("resources", ()), wanted)
        and (not rule.get("resourceNames") or wanted.name in rule["resourceNames"])
        and (not rule.get("namespaces") or wanted.namespace in rule["namespaces"])
    )


def _has(listed: Iterable[str], wanted: str) -> bool:
    return any(each in {"*", wanted} for each in listed)


def _has_resource(listed: Iterable[str], wanted: Asked) -> bool:
    if not wanted.subresource:
        return _has(listed, wanted.resource)
    combined = f"{wanted.resource}/{wanted.subresource}"
    return any(each in {"*", combined, f"*/{wanted.subresource}"} for each in listed)


def _covers(url: str, path: str) -> bool:
    return url in {"*", path} or (url.endswith("*") and path.startswith(url[:-1]))


def forbidden(user: User, wanted: Asked) -> ApiError:
    """403 in the real server's words."""
    if not wanted.resource:
        why = f'User "{user.name}" cannot {wanted.verb} path "{wanted.path}"'
        return ApiError(403, "Forbidden", f"forbidden: {why}")
    resource = "/".join(part for part in (wanted.resource, wanted.subresource) if part)
    why = f'User "{user.name}" cannot {wanted.verb} resource "{resource}" in API group "{wanted.group}"'
    why += f' in the namespace "{wanted.namespace}"' if wanted.namespace else " at the cluster scope"
    qualified = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    subject = f'{qualified} "{wanted.name}"' if wanted.name else qualified
    details = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
    return ApiError(403, "Forbidden", f"{subject} is forbidden: {why}", **details)
