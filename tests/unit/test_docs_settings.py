"""docs/settings.md tells every key, parameter, old spelling and missing type, in the code's words."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import msgspec.inspect as types
import pytest

from epp.cli_plugins import type_name
from epp.config.absent import ABSENT, GONE, IDLE
from epp.config.gates import KNOWN, RETIRED
from epp.config.roster import FEEDS
from epp.config.schema import Config, Ref
from epp.config.spelling import RENAMED

TEXT = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()


def docs(kind: type) -> dict[str, str]:
    """The docstring under each field of a record, on one line."""
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def rows(kind: type[msgspec.Struct]) -> list[str]:
    """A table row for each key of a record and of the records in it; those met before are not told again."""
    return list(_rows(kind, "", set()))


def _rows(kind: type[msgspec.Struct], prefix: str, met: set[type]) -> Iterator[str]:
    texts = docs(kind)
    for field in msgspec.structs.fields(kind):
        inner, many = _inner(types.type_info(field.type))
        path = f"{prefix}{field.encode_name}{'[]' if many else ''}"
        if inner is Ref:
            yield f"| `{path}.pluginRef` | text | {texts[field.name]} |"
        elif inner is None:
            yield f"| `{path}` | {_type(field.type)} | {texts[field.name]} |"
        else:
            yield f"| `{path}` | {'as above' if inner in met else ''} | {texts[field.name]} |"
            if inner not in met:
                met.add(inner)
                yield from _rows(inner, f"{path}.", met)


def _inner(kind: types.Type) -> tuple[type[msgspec.Struct] | None, bool]:
    """The record a field holds, and whether it holds many."""
    match kind:
        case types.UnionType(types=options):
            return _inner(options[0])
        case types.VarTupleType(item_type=item):
            return _inner(item)[0], True
        case types.StructType(cls=cls):
            return cls, False
    return None, False


def _type(annotation: object) -> str:
    words = {"Seconds": "duration", "Amount": "quantity", "true|false": "true or false"}
    name = type_name(annotation)
    return words.get(name, name).replace("|", " or ")


@pytest.mark.parametrize("row", rows(Config))
def test_every_key_is_told(row: str) -> None:
    assert row in TEXT, row


@pytest.mark.parametrize("row", [row for kind in FEEDS.values() for row in rows(kind)])
def test_every_parameter_of_the_data_layer_is_told(row: str) -> None:
    assert row in TEXT, row


TOLD = [
    *(f"| `{name}` | {idle.why} |" for name, idle in IDLE.items()),
    *(f"| `{name}` | {about} | {instead} |" for name, (about, instead) in ABSENT.items()),
    *(f"| `{name}` | {instead} |" for name, instead in GONE.items()),
    *(f"| `{old}` | `{new}` |" for old, new in RENAMED.items()),
    *(f"`{gate}`" for gate in [*KNOWN, *RETIRED]),
]


@pytest.mark.parametrize("told", TOLD)
def test_what_is_not_here_or_has_another_name_is_told(told: str) -> None:
    assert told in TEXT, told


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "config").glob("*.yaml")), ids=lambda p: p.name)
def test_every_ready_configuration_is_told(path: Path) -> None:
    assert f"[config/{path.name}](../config/{path.name})" in TEXT
