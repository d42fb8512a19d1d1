"""The objects that kubectl sends as protobuf (`auth can-i`, `create namespace` and the like), read into plain ones.

Field numbers are those of the published generated.proto files; a field that is not in the table is refused.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from tests.apiserver.errors import ApiError

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_REVIEW = {1: "metadata:ObjectMeta", 3: "-"}
_ATTRIBUTES = {1: "resourceAttributes:ResourceAttributes", 2: "nonResourceAttributes:NonResourceAttributes"}
_ROLE = {1: "metadata:ObjectMeta", 2: "rules[]:PolicyRule"}
_BINDING = {1: "metadata:ObjectMeta", 2: "subjects[]:Subject", 3: "roleRef:RoleRef"}
_MESSAGES: dict[str, dict[int, str]] = {
    "Unknown": {1: "typeMeta:TypeMeta", 2: "raw=", 3: "-", 4: "-"},
    "TypeMeta": {1: "apiVersion", 2: "kind"},
    "ObjectMeta": {
        1: "name",
        2: "generateName",
        3: "namespace",
        6: "resourceVersion",
        8: "-",
        11: "labels{}",
        12: "annotations{}",
        14: "finalizers[]",
    },
    "Namespace": {1: "metadata:ObjectMeta", 2: "-", 3: "-"},
    "ConfigMap": {1: "metadata:ObjectMeta", 2: "data{}"},
    "Secret": {1: "metadata:ObjectMeta", 2: "data{=}", 3: "type", 4: "stringData{}"},
    "ServiceAccount": {1: "metadata:ObjectMeta"},
    "Role": _ROLE,
    "ClusterRole": _ROLE,
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "PolicyRule": {1: "verbs[]", 2: "apiGroups[]", 3: "resources[]", 4: "resourceNames[]", 5: "nonResourceURLs[]"},
    "Subject": {1: "kind", 2: "apiGroup", 3: "name", 4: "namespace"},
    "RoleRef": {1: "apiGroup", 2: "kind", 3: "name"},
    "SelfSubjectReview": {1: "metadata:ObjectMeta", 2: "-"},
    "SelfSubjectAccessReview": _REVIEW | {2: "spec:SelfSubjectAccessReviewSpec"},
    "SelfSubjectAccessReviewSpec": _ATTRIBUTES,
    "SubjectAccessReview": _REVIEW | {2: "spec:SubjectAccessReviewSpec"},
    "SubjectAccessReviewSpec": _ATTRIBUTES | {3: "user", 4: "groups[]", 6: "uid"},
    "SelfSubjectRulesReview": _REVIEW | {2: "spec:SelfSubjectRulesReviewSpec"},
    "SelfSubjectRulesReviewSpec": {1: "namespace"},
    "TokenReview": _REVIEW | {2: "spec:TokenReviewSpec"},
    "TokenReviewSpec": {1: "token", 2: "audiences[]"},
    "ResourceAttributes": {
        1: "namespace",
        2: "verb",
        3: "group",
        4: "version",
        5: "resource",
        6: "subresource",
        7: "name",
    },
    "NonResourceAttributes": {1: "path", 2: "verb"},
}
"""Message → number → field: `x` a string, `x=` bytes, `x[]` a list, `x{}` a map, `x:M` a message, `-` not read."""


def decode(body: bytes) -> dict[str, Any]:
    """The object in an envelope; raises 415 for kinds and fields that the table lacks."""
    if not body.startswith(_MAGIC):
        raise _unread("a body without the envelope's magic number")
    envelope = _message("Unknown", body[len(_MAGIC) :])
    kind = envelope["typeMeta"]["kind"]
    if kind not in _MESSAGES:
        raise _unread(f"kind {kind}")
    return envelope["typeMeta"] | _message(kind, envelope["raw"])


def _unread(what: str) -> ApiError:
    message = f"this API server for tests reads no {what} as protobuf; send application/json"
    return ApiError(415, "UnsupportedMediaType", message)


def _message(name: str, body: bytes) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for number, value in _fields(body):
        field = _MESSAGES[name].get(number, "")
        if field:
            _put(read, field, value)
        elif value:
            raise _unread(f"field {number} of {name}")
    return read


def _put(read: dict[str, Any], field: str, value: bytes | int) -> None:
    if field == "-" or isinstance(value, int):
        return
    name, _, message = field.partition(":")
    if name.endswith("}"):
        key, content = _entry(value)
        read.setdefault(name.rstrip("{=}"), {})[key] = _text(content, name.endswith("{=}"))
    elif name.endswith("[]"):
        read.setdefault(name[:-2], []).append(_message(message, value) if message else value.decode())
    elif message:
        read[name] = _message(message, value)
    elif name.endswith("="):
        read[name[:-1]] = value
    elif value:
        read[name] = value.decode()


def _entry(body: bytes) -> tuple[str, bytes]:
    fields = {number: value for number, value in _fields(body) if isinstance(value, bytes)}
    return fields.get(1, b"").decode(), fields.get(2, b"")


def _text(content: bytes, is_bytes: bool) -> str:
    return base64.b64encode(content).decode() if is_bytes else content.decode()


def _fields(body: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        if tag & 7 == 0:
            number, at = _varint(body, at)
            yield tag >> 3, number
        elif tag & 7 == 2:
            length, at = _varint(body, at)
            yield tag >> 3, body[at : at + length]
            at += length
        else:
            raise _unread(f"wire type {tag & 7}")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (body[at] & 0x7F) << shift
        at += 1
        if not body[at - 1] & 0x80:
            return value, at
        shift += 7
