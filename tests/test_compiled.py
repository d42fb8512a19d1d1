"""What a compiled module must keep to, as mypyc would not say and the processes would crash or differ."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILED = re.findall(r'^    "((?:epp|scorers)/\S+\.py)",$', (ROOT / "setup.py").read_text(), re.MULTILINE)


def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def _names(bases: list[ast.expr]) -> set[str]:
    return {base.id if isinstance(base, ast.Name) else getattr(base, "attr", "") for base in bases}


def test_the_hot_path_is_compiled() -> None:
    assert {"epp/extproc/dialogue.py", "epp/route.py", "epp/scheduler.py"} <= set(COMPILED)
    assert sorted(COMPILED) == COMPILED


def _classes(path: str) -> list[ast.ClassDef]:
    return [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef)]


def _exceptions() -> set[str]:
    """Every class of ours that is an exception, by way of another one too."""
    ours = [one for path in (ROOT / "epp").rglob("*.py") for one in _classes(str(path.relative_to(ROOT)))]
    found = {one.name for one in ours if any(name.endswith(("Exception", "Error")) for name in _names(one.bases))}
    while more := {one.name for one in ours if _names(one.bases) & found} - found:
        found |= more
    return found


EXCEPTIONS = _exceptions()


def test_exceptions_are_known_whatever_they_derive_from() -> None:
    assert {"Refused", "Evicted", "FeedError", "Oversized"} <= EXCEPTIONS


@pytest.mark.parametrize("path", COMPILED)
def test_it_defines_no_exception(path: str) -> None:
    """A compiled one that is made by uncompiled code lacks its methods: reading a property then ends the process."""
    assert EXCEPTIONS & {one.name for one in _classes(path)} == set()


@pytest.mark.parametrize("path", COMPILED)
def test_it_does_not_look_into_objects_that_have_no_dictionary(path: str) -> None:
    named = {node.id for node in ast.walk(_tree(path)) if isinstance(node, ast.Name)}
    read = {node.attr for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
    assert (named | read) & {"vars", "__dict__"} == set()
