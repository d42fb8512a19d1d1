"""Strategic merge patch: merge patch that knows by which field the elements of a list are told apart."""

from __future__ import annotations

from typing import Any

from tests.apiserver.patches import merge

_MERGE_KEYS = {
    "addresses": ("type",),
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "ephemeralContainers": ("name",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "ports": ("containerPort", "port"),
    "secrets": ("name",),
    "topologySpreadConstraints": ("topologyKey",),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""List field → the key its elements are merged by; the first that the patch's elements carry. Others are replaced."""
_SETS = {"finalizers"}
"""Lists of strings that are merged."""


def strategic(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return merge(target, patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    kept = patch.get("$retainKeys")
    merged = (
        {key: value for key, value in (target or {}).items() if kept is None or key in kept}
        if isinstance(target, dict) or target is None
        else {}
    )
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(merged, key, value)
    for key, value in patch.items():
        if key.startswith("$"):
            _direct(merged, key, value)
    return merged


def _merge_field(merged: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        merged.pop(key, None)
    elif isinstance(value, list):
        merged[key] = _merge_list(key, merged.get(key) or [], value)
    else:
        merged[key] = strategic(merged.get(key), value)


def _direct(merged: dict[str, Any], key: str, value: Any) -> None:
    """`$deleteFromPrimitiveList/x` and `$setElementOrder/x`."""
    directive, _, field = key.partition("/")
    found = merged.get(field)
    if not isinstance(found, list):
        return
    if directive == "$deleteFromPrimitiveList":
        merged[field] = [each for each in found if each not in value]
    elif directive == "$setElementOrder":
        merged[field] = _ordered(field, found, value)


def _merge_list(field: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if field in _SETS:
        return [*target, *(each for each in patch if each not in target)]
    key = _merge_key(field, patch)
    if not key:
        return merge(None, [each for each in patch if not _is(each, "replace")])
    if any(_is(each, "replace") for each in patch):
        return [each for each in patch if not _is(each, "replace")]
    merged = {each.get(key): each for each in target if isinstance(each, dict)}
    for each in patch:
        if _is(each, "delete"):
            merged.pop(each.get(key), None)
        else:
            merged[each.get(key)] = strategic(merged.get(each.get(key)), each)
    return list(merged.values())


def _merge_key(field: str, patch: list[Any]) -> str:
    named = (key for key in _MERGE_KEYS.get(field, ()) if any(isinstance(each, dict) and key in each for each in patch))
    return next(named, "")


def _is(element: Any, directive: str) -> bool:
    return isinstance(element, dict) and element.get("$patch") == directive


def _ordered(field: str, found: list[Any], order: list[Any]) -> list[Any]:
    """Elements named by the order first and in its sequence, the others after them."""
    key = _merge_key(field, order)
    places = {each[key] if key else each: at for at, each in enumerate(order)}
    return sorted(found, key=lambda each: places.get(each.get(key) if key else each, len(places)))
