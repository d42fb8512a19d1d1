"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386)."""

from __future__ import annotations

import copy
from typing import Any

from tests.apiserver.errors import ApiError, bad_request, unprocessable

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def merge(target: Any, patch: Any) -> Any:
    """null deletes, maps are merged, all else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def json_patch(target: Any, operations: Any) -> Any:
    """All operations or none."""
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    changed = copy.deepcopy(target)
    for operation in operations:
        changed = _operate(changed, operation)
    return changed


def _operate(target: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation.get("op"), _pointer(operation.get("path", ""))
    if kind == "test":
        if _get(target, path) != operation.get("value"):
            raise _failed(f"testing path {operation['path']} failed", "test failed")
        return target
    if kind in {"move", "copy"}:
        origin = _pointer(operation.get("from", ""))
        value = copy.deepcopy(_get(target, origin))
        return _add(_remove(target, origin) if kind == "move" else target, path, value)
    if kind == "remove":
        return _remove(target, path)
    if kind == "replace":
        _get(target, path)
        return _set(target, path, operation.get("value"))
    if kind == "add":
        return _add(target, path, operation.get("value"))
    raise _failed(f"Unexpected kind: {kind}", "")


def _failed(what: str, why: str) -> ApiError:
    return unprocessable(f"{what}: {why}" if why else what)


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise _failed(f"{path}", "a path begins with /")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _get(target: Any, path: list[str]) -> Any:
    for step in path:
        target = target[_key(target, step)]
    return target


def _key(container: Any, step: str) -> Any:
    """Of something that is there."""
    missing = _failed(f"doc is missing path: /{step}", "missing value")
    if isinstance(container, list):
        if not step.isdigit() or int(step) >= len(container):
            raise missing
        return int(step)
    if not isinstance(container, dict) or step not in container:
        raise missing
    return step


def _remove(target: Any, path: list[str]) -> Any:
    parent = _get(target, path[:-1])
    del parent[_key(parent, path[-1])]
    return target


def _set(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(target, path[:-1])
    parent[_key(parent, path[-1])] = value
    return target


def _add(target: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(target, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list) and path[-1] == "-":
        parent.append(value)
    elif isinstance(parent, list) and path[-1].isdigit() and int(path[-1]) <= len(parent):
        parent.insert(int(path[-1]), value)
    else:
        raise _failed(f"Unable to access invalid index: {path[-1]}", "invalid index referenced")
    return target
