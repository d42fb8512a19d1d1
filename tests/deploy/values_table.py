"""The table of the chart's values, made of the comments in values.yaml. `python -m tests.deploy.values_table` writes it
into the chart's README."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from .documents import Json
from .sources import CHART

README = CHART / "README.md"
BEGIN, END = "<!-- values -->\n", "<!-- /values -->\n"
KEY = re.compile(r"( *)([\w-]+):(.*)")
TOLD = "# -- "


@dataclass(frozen=True)
class Value:
    """One value that may be set: path, default, meaning."""

    path: str
    default: Json
    about: str

    @property
    def row(self) -> str:
        shown = json.dumps(self.default, ensure_ascii=False) if self.default != "" else '""'
        return f"| `{self.path}` | {self.about} | `{shown}` |"


def values() -> list[Value]:
    """Each value with a comment `# --` above it, in the file's order."""
    text = (CHART / "values.yaml").read_text()
    defaults = yaml.safe_load(text)
    return [Value(path, _at(defaults, path), about) for path, about in _commented(text)]


def _commented(text: str) -> Iterator[tuple[str, str]]:
    above: list[tuple[int, str]] = []
    about = ""
    for line in text.splitlines():
        if line.strip().startswith(TOLD):
            about = line.strip().removeprefix(TOLD)
        elif found := KEY.fullmatch(line):
            indent = len(found[1])
            above = [*[(depth, key) for depth, key in above if depth < indent], (indent, found[2])]
            if about:
                yield ".".join(key for _, key in above), about
            about = ""


def _at(value: Json, path: str) -> Json:
    for key in path.split("."):
        value = value[key]
    return value


def table() -> str:
    return "\n".join(["| value | meaning | default |", "|---|---|---|", *(value.row for value in values())]) + "\n"


def readme() -> str:
    """The README with the table as it should be."""
    before, _, rest = README.read_text().partition(BEGIN)
    return before + BEGIN + table() + END + rest.partition(END)[2]


if __name__ == "__main__":
    README.write_text(readme())
