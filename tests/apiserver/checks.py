"""What an object must be like to be stored: its name and labels, and the content of the kinds clients trip over."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tests.apiserver.crds import kind_of
from tests.apiserver.errors import ApiError, bad_request, invalid
from tests.apiserver.kinds import CRD, Kind

Object = dict[str, Any]
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_MICRO = "2006-01-02T15:04:05.000000Z07:00"
"""The layout of Go's that a MicroTime must have: six digits after the point, no more and no fewer."""
_MICRO_FORM = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_LEASE: dict[str, tuple[type, ...]] = {
    "holderIdentity": (str,),
    "leaseDurationSeconds": (int,),
    "leaseTransitions": (int,),
    "acquireTime": (str,),
    "renewTime": (str,),
}


def content(kind: Kind, sent: Object) -> None:
    """All that this server checks; raises 400 for wrong types and 422 for wrong values."""
    labels(kind, sent["metadata"])
    check = _CHECKS.get(kind.kind)
    if check is not None:
        check(kind, sent)


def _lease(kind: Kind, sent: Object) -> None:
    """Times are kept as the server prints them, in UTC."""
    spec = sent.get("spec") or {}
    for field, types in _LEASE.items():
        value = spec.get(field)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            raise _unreadable(kind, f"json: cannot unmarshal {_go(value)} into Go struct field LeaseSpec.spec.{field}")
    for field, least, why in (
        ("leaseDurationSeconds", 1, "must be greater than 0"),
        ("leaseTransitions", 0, "must be greater than or equal to 0"),
    ):
        if spec.get(field) is not None and spec[field] < least:
            raise invalid(kind, sent["metadata"]["name"], f"spec.{field}", f"Invalid value: {spec[field]}: {why}")
    for field in ("acquireTime", "renewTime"):
        if spec.get(field) is not None:
            spec[field] = _micro(kind, spec[field])


def _micro(kind: Kind, text: str) -> str:
    if not _MICRO_FORM.fullmatch(text):
        raise _unreadable(kind, f'parsing time "{text}" as "{_MICRO}": cannot parse "{text}"')
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _definition(kind: Kind, sent: Object) -> None:
    found = sent["metadata"]["name"]
    try:
        described = kind_of(sent)
    except (KeyError, TypeError, StopIteration) as missing:
        raise invalid(kind, found, "spec", f"Required value: {missing}") from None
    if found != described.qualified:
        why = f'Invalid value: "{found}": must be spec.names.plural+"."+spec.group'
        raise invalid(kind, found, "metadata.name", why)


_CHECKS: dict[str, Callable[[Kind, Object], None]] = {"Lease": _lease, CRD.kind: _definition}


def _unreadable(kind: Kind, why: str) -> ApiError:
    return bad_request(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}')


def name(kind: Kind, name: str) -> None:
    if not name:
        raise invalid(kind, "", "metadata.name", "Required value: name or generateName is required")
    if kind.group == "rbac.authorization.k8s.io":
        if re.search(r"[/%]", name) or name in {".", ".."}:
            raise invalid(kind, name, "metadata.name", f"Invalid value: \"{name}\": may not contain '/'")
        return
    pattern, rule = (_LABEL, _LABEL_RULE) if kind.kind in {"Namespace", "Service"} else (_SUBDOMAIN, _RULE)
    if not pattern.fullmatch(name) or len(name) > 253:
        raise invalid(kind, name, "metadata.name", f'Invalid value: "{name}": {rule}')


def labels(kind: Kind, metadata: dict[str, Any]) -> None:
    """Labels and annotations are maps of text to text; a label's value has a certain form."""
    for field in ("labels", "annotations"):
        found = metadata.get(field) or {}
        if not isinstance(found, dict):
            raise _not_text(kind, field, found)
        for value in found.values():
            if not isinstance(value, str):
                raise _not_text(kind, field, value)
    for value in (metadata.get("labels") or {}).values():
        if not (_LABEL_VALUE.fullmatch(value) and len(value) <= 63):
            raise invalid(kind, metadata["name"], "metadata.labels", f'Invalid value: "{value}": {_VALUE_RULE}')


def _not_text(kind: Kind, field: str, value: Any) -> ApiError:
    return _unreadable(kind, f"json: cannot unmarshal {_go(value)} into Go struct field ObjectMeta.metadata.{field}")


def _go(value: Any) -> str:
    names = {bool: "bool", int: "number", float: "number", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "null")
