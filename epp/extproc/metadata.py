"""What other filters tell of a request: protobuf's JSON-like values as Python's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from envoy.config.core.v3.base_pb2 import Metadata as MetadataMessage
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value

from epp.headers import Metadata


class Late(Mapping[str, Any]):
    """Metadata that is decoded when somebody looks: on responses hardly anybody does.

    What is no Metadata message is as if nothing had been forwarded.
    """

    __slots__ = ("_found", "_wire")

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._found: Metadata | None = None

    def _members(self) -> Metadata:
        if self._found is None:
            try:
                self._found = namespaces(MetadataMessage.FromString(self._wire))
            except DecodeError:
                self._found = {}
        return self._found

    def __getitem__(self, name: str) -> Any:
        return self._members()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members())

    def __len__(self) -> int:
        return len(self._members())


def namespaces(message: MetadataMessage) -> dict[str, dict[str, Any]]:
    forwarded = message.filter_metadata
    return {name: _members(forwarded[name]) for name in forwarded} if forwarded else {}


def _members(struct: Struct) -> dict[str, Any]:  # JSON-like values
    return {name: _member(value) for name, value in struct.fields.items()}


def _member(value: Value) -> Any:
    # protobuf's own conversion to JSON raises on a NaN, which another filter may well have computed.
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _members(value.struct_value)
    if kind == "list_value":
        return [_member(one) for one in value.list_value.values]
    return None if kind is None or kind == "null_value" else getattr(value, kind)
