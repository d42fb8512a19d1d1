"""The sizes and names of the house. A function's lines run from `def` to its end, its docstring not counted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("epp", "scorers", "sim", "sidecar")
SOURCES = sorted(
    path for name in PACKAGES for path in (ROOT / name).rglob("*.py") if not path.stem.endswith(("_pb2", "_pb2_grpc"))
)
TEXTS = sorted(
    path
    for folder in (*PACKAGES, "tests", "docs", "deploy", "config", "examples", "benchmarks", "proto", "news", ".ci", "")
    for path in ((ROOT / folder).rglob("*") if folder else ROOT.glob("*"))
    if path.suffix in {".py", ".md", ".yaml", ".yml", ".toml", ".json", ".proto", ".sh", ".txt", ".sse", ".tpl", ""}
    and path.is_file()
    and path != Path(__file__)
    and not {"__pycache__", "build"} & set(path.parts)
)
Function = ast.FunctionDef | ast.AsyncFunctionDef

BANNED_WORDS = {"manager", "helper", "helpers", "util", "utils", "common"}
BANNED_NAMES = {"data", "info", "base"}
BANNED_STARTS = ("process_", "handle_")
OF_UPSTREAM = {"kv_cache_util_threshold"}
"""Settings that files in the wild have by these names."""
MACHINE = re.compile(r"/work/|/root/|/home/\w|pypi\.org|pythonhosted")


@dataclass(frozen=True)
class Measured:
    """One function of the house."""

    where: str
    node: Function
    lines: int
    excused: bool
    """A comment `# long: reason` stands on or above its `def`."""


def _functions(path: Path) -> Iterator[Measured]:
    text = path.read_text()
    source = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            beside = source[max(node.lineno - 2, 0) : node.body[0].lineno]
            excused = any(re.search(r"# long: \S", line) for line in beside)
            yield Measured(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node, _lines(node), excused)


def _lines(node: Function) -> int:
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


FUNCTIONS = [function for path in SOURCES for function in _functions(path)]


def test_half_the_functions_have_at_most_8_lines_and_nine_tenths_25() -> None:
    lines = [function.lines for function in FUNCTIONS]
    assert median(lines) <= 8
    assert quantiles(lines, n=10)[-1] <= 25


def test_no_function_has_more_than_50_lines_without_a_reason() -> None:
    assert [f"{f.where}: {f.lines}" for f in FUNCTIONS if f.lines > 50 and not f.excused] == []


def test_no_function_takes_more_than_5_positional_parameters() -> None:
    assert [f.where for f in FUNCTIONS if len(_positional(f.node)) > 5] == []


def _positional(node: Function) -> list[str]:
    """Those without a default: an optional signal a plug-in may read is no burden on who calls it."""
    names = [parameter.arg for parameter in (*node.args.posonlyargs, *node.args.args)]
    names = names[: len(names) - len(node.args.defaults)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_no_file_has_more_than_300_lines() -> None:
    counted = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in counted.items() if lines > 300} == {}


def test_every_function_is_annotated() -> None:
    assert [f.where for f in FUNCTIONS if f.node.returns is None or not _annotated(f.node)] == []


def _annotated(node: Function) -> bool:
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    rest = [parameter for parameter in (node.args.vararg, node.args.kwarg) if parameter]
    return all(p.annotation or p.arg in {"self", "cls"} for p in (*named, *rest))


def _names(path: Path) -> Iterator[str]:
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _banned(name: str) -> bool:
    if name in OF_UPSTREAM:
        return False
    words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+", name)}
    return name in BANNED_NAMES or bool(words & BANNED_WORDS) or name.startswith(BANNED_STARTS)


@pytest.mark.parametrize("name", ["data", "base", "pool_manager", "PoolManager", "handle_request", "utils"])
def test_a_name_that_says_nothing_is_found(name: str) -> None:
    assert _banned(name)


def test_no_name_says_nothing() -> None:
    found = {f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in _names(path) if _banned(name)}
    assert sorted(found) == []


def test_nothing_speaks_of_the_machine_it_was_written_on() -> None:
    found = [str(path.relative_to(ROOT)) for path in TEXTS if MACHINE.search(path.read_text(errors="replace"))]
    assert found == []
