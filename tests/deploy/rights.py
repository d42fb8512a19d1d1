"""What a picker may do in the cluster: exactly what it needs."""

from __future__ import annotations

from collections.abc import Iterator

from .documents import Document, Json, at
from .pickers import Picker, pickers

READ = frozenset({"get", "list", "watch"})
LEAD = READ | {"create", "update", "patch", "delete"}
Right = tuple[str, str, str]
"""Group, resource, verb."""


def _all(group: str, resource: str, verbs: frozenset[str]) -> frozenset[Right]:
    return frozenset((group, resource, verb) for verb in verbs)


PODS = _all("", "pods", READ)
POOLS = (
    _all("inference.networking.k8s.io", "inferencepools", READ)
    | _all("inference.networking.x-k8s.io", "inferencepools", READ)
    | frozenset(
        right
        for group in ("llm-d.ai", "inference.networking.x-k8s.io")
        for resource in ("inferenceobjectives", "inferencemodelrewrites")
        for right in _all(group, resource, READ)
    )
)
LEADS = _all("coordination.k8s.io", "leases", LEAD)
REVIEWS = _all("authentication.k8s.io", "tokenreviews", frozenset({"create"})) | _all(
    "authorization.k8s.io", "subjectaccessreviews", frozenset({"create"})
)


def wanted(picker: Picker) -> frozenset[Right]:
    """By its own flags."""
    options = picker.options
    rights: frozenset[Right] = frozenset()
    if options.pool_name or options.endpoint_selector:
        rights |= PODS
    if options.pool_name:
        rights |= POOLS
    if options.ha_enable_leader_election:
        rights |= LEADS
    if options.metrics_endpoint_auth:
        rights |= REVIEWS
    return rights


def granted(account: str, found: list[Document]) -> frozenset[Right]:
    """By every Role and ClusterRole that a binding of the source gives to the account."""
    bindings = [one for one in found if one.kind in {"RoleBinding", "ClusterRoleBinding"}]
    roles = [binding.value["roleRef"] for binding in bindings if account in at(binding.value, "subjects[].name")]
    rules = [rule for role in roles for rule in _rules(role["kind"], role["name"], found)]
    return frozenset(
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    )


def _rules(kind: str, name: str, found: list[Document]) -> list[Json]:
    if name == "system:auth-delegator":
        return [{"apiGroups": [group], "resources": [what], "verbs": [verb]} for group, what, verb in REVIEWS]
    return [rule for one in found if (one.kind, one.name) == (kind, name) for rule in one.value.get("rules", [])]


def mismatches(found: list[Document]) -> Iterator[str]:
    """Rights that a picker lacks or has without needing them."""
    for picker in pickers(found):
        account = picker.pod.get("serviceAccountName")
        if not any(one.kind == "ServiceAccount" and one.name == account for one in found):
            continue
        needs, has = wanted(picker), granted(account, found)
        for word, rights in (("lacks", needs - has), ("needs no", has - needs)):
            yield from (
                f"{picker.where}: {word} {verb} of {group or 'core'}/{what}" for group, what, verb in sorted(rights)
            )
