"""Strict YAML, and JSON with it: plain values, and the line each one stands on.

Scalars are read as sigs.k8s.io/yaml reads them, so that one file means the same in both pickers: no dates, no base-60
numbers, 1e3 is a number, and keys are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from epp.config.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Document:
    """A file as plain values: dict, list, str, int, float, bool or None."""

    value: Any  # whatever the file holds; the schema types it
    lines: dict[str, int] = field(default_factory=dict)
    """Path such as `plugins[2].type` → line, from 1."""

    def line(self, path: str) -> int:
        """The line of `path`, or of the nearest thing around it; 0 = not known."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return 0


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema and Go's booleans."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own pattern


TAG = "tag:yaml.org,2002:"
PLAIN = {
    "merge": (r"<<", "<"),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    "int": (r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN)", "-+.0123456789"),
}
"""Kind of unquoted scalar → its pattern and the characters it starts with. Earlier ones are tried first."""
for _kind, (_pattern, _first) in PLAIN.items():
    _Loader.add_implicit_resolver(TAG + _kind, re.compile(rf"(?:{_pattern})\Z"), list(_first))
SCALARS = frozenset(TAG + kind for kind in ("str", "null", "bool", "int", "float"))


def read(text: str) -> Document:
    """The one document in `text`; ConfigError names the line of what is wrong."""
    if text.lstrip().startswith("{"):
        # JSON may be indented with tabs, which YAML forbids; inside JSON strings they can't occur.
        text = text.replace("\t", " ")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        return Document(None) if root is None else _Reader(loader).document(root)
    except yaml.YAMLError as error:
        raise _translated(error) from None
    except RecursionError:
        raise ConfigError("", "it is nested too deeply") from None


def _translated(error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    if problem == "but found another document":
        return ConfigError("", "it holds more than one document; keep one", mark.line + 1 if mark else 0)
    return ConfigError("", f"not valid YAML: {problem}", mark.line + 1 if mark else 0)


class _Reader:
    """Turns nodes into plain values and notes their lines."""

    def __init__(self, loader: _Loader) -> None:
        self._loader = loader
        self._lines: dict[str, int] = {}
        self._open: set[int] = set()

    def document(self, root: yaml.Node) -> Document:
        return Document(self._value(root, ""), self._lines)

    def _value(self, node: yaml.Node, path: str) -> Any:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._open:
            raise ConfigError(path, "an alias refers to what it stands in", node.start_mark.line + 1)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            return [self._value(item, f"{path}[{number}]") for number, item in enumerate(node.value)]
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = _name(key, path)
            if name in seen and key.tag != TAG + "merge":
                raise ConfigError(path, f"key {name!r} is there twice; keep one", key.start_mark.line + 1)
            seen.add(name)
        # Puts merged keys (<<) first, so that the mapping's own come after and win.
        self._loader.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key, item in node.value:
            name = _name(key, path)
            inner = f"{path}.{name}" if path else name
            self._lines[inner] = key.start_mark.line + 1
            values[name] = self._value(item, inner)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        line = node.start_mark.line + 1
        if node.tag not in SCALARS:
            raise ConfigError(path, f"tag {node.tag.replace(TAG, '!!')} is not used here; write a plain value", line)
        try:
            value = self._loader.construct_object(node)
            if isinstance(value, str):
                # JSON writes characters beyond 16 bits as two escapes, which YAML reads as two characters.
                value = value.encode("utf-16", "surrogatepass").decode("utf-16")
        except (ValueError, LookupError):  # the latter where a tag does not fit
            raise ConfigError(path, f"can't be read: {node.value!r}", line) from None
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(path, f"{node.value} is not a finite number", line)
        return value


def _name(key: yaml.Node, path: str) -> str:
    if not isinstance(key, yaml.ScalarNode):
        raise ConfigError(path, "a key must be text", key.start_mark.line + 1)
    text: str = key.value
    return text
