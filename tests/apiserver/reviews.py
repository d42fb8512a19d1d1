"""Reviews: created, answered, never stored."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tests.apiserver.errors import bad_request, no_such_resource
from tests.apiserver.rbac import Access, User
from tests.apiserver.route import Asked


def review(kind: str, sent: dict[str, Any], user: User, access: Access) -> dict[str, Any]:
    """The review with its status."""
    spec = sent.get("spec") or {}
    if kind == "TokenReview":
        status = _token(spec, access)
    elif kind == "SubjectAccessReview":
        status = _access(spec, User(spec.get("user", ""), tuple(spec.get("groups") or ())), access)
    elif kind == "SelfSubjectAccessReview":
        status = _access(spec, user, access)
    elif kind == "SelfSubjectRulesReview":
        status = _rules(spec, user, access)
    elif kind == "SelfSubjectReview":
        status = {"userInfo": _shown(user)}
    else:
        raise no_such_resource()
    return sent | {"metadata": (sent.get("metadata") or {}) | {"creationTimestamp": None}, "status": status}


def _shown(user: User) -> dict[str, Any]:
    return {"username": user.name, "uid": f"uid-of-{user.name}", "groups": list(user.groups)}


def _token(spec: dict[str, Any], access: Access) -> dict[str, Any]:
    """A token nobody has: `authenticated` is absent, as Go leaves out false."""
    if not spec.get("token"):
        raise bad_request("token is required for TokenReview in authentication")
    user = access.holder(spec["token"])
    if user is None:
        return {"user": {}, "error": "[invalid bearer token, unknown token]"}
    return {"authenticated": True, "user": _shown(user)} | (
        {"audiences": spec["audiences"]} if spec.get("audiences") else {}
    )


def _access(spec: dict[str, Any], user: User, access: Access) -> dict[str, Any]:
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if bool(resource) == bool(path):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if resource:
        known = asdict(Asked("", ""))
        wanted = Asked(**{"path": "", "verb": ""} | {key: value for key, value in resource.items() if key in known})
    else:
        wanted = Asked(path.get("path", ""), path.get("verb", ""))
    if access.allows(user, wanted):
        return {"allowed": True, "reason": "RBAC: allowed by the table of this test"}
    return {"allowed": False}


def _rules(spec: dict[str, Any], user: User, access: Access) -> dict[str, Any]:
    namespace = spec.get("namespace", "default")
    rules = [rule for rule in access.rules(user) if namespace in (rule.get("namespaces") or [namespace])]
    resource = [{k: v for k, v in rule.items() if k != "namespaces"} for rule in rules if rule.get("resources")]
    other = [rule for rule in rules if rule.get("nonResourceURLs")]
    return {"resourceRules": resource, "nonResourceRules": other, "incomplete": False}
