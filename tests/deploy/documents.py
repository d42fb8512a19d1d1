"""YAML files as documents: strict about doubled keys, and every value in them reachable by a walk."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Json = Any
"""What a YAML file holds; the schemas tell its shape."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a mapping with the same key twice: Kubernetes refuses it too, PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.value != "<<"]
        doubled = sorted({key for key in keys if keys.count(key) > 1})
        if doubled:
            raise yaml.constructor.ConstructorError(None, None, f"{doubled} twice in one mapping", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag != "tag:yaml.org,2002:timestamp"]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True)
class Document:
    """One YAML document and where it is from."""

    where: str
    value: Json

    @property
    def is_object(self) -> bool:
        """A Kubernetes object; an EndpointPickerConfig only looks like one."""
        return isinstance(self.value, dict) and {"apiVersion", "kind", "metadata"} <= set(self.value)

    @property
    def group(self) -> str:
        """API group, "" for the core."""
        return str(self.value["apiVersion"]).rpartition("/")[0]

    @property
    def kind(self) -> str:
        return str(self.value["kind"])

    @property
    def name(self) -> str:
        return str(self.value["metadata"].get("name", ""))

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.name}" if self.is_object else self.where


def documents(text: str, where: str) -> list[Document]:
    """Every document of a YAML text that is not empty."""
    found = [value for value in yaml.load_all(text, _Loader) if value is not None]
    return [Document(where, value) for value in found]


def walk(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every value inside `value` with its path, such as `spec.ports[0].name`; the whole first."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from walk(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from walk(inner, f"{path}[{at}]")


def at(value: Json, path: str) -> list[Json]:
    """All values at `path`, where `name[]` goes into each item of a list: `spec.containers[].image`."""
    found = [value]
    for step in path.split("."):
        key, each, _ = step.partition("[]")
        found = [inner[key] for inner in found if isinstance(inner, dict) and inner.get(key) is not None]
        if each:
            found = [item for items in found if isinstance(items, list) for item in items]
    return found
