"""Reads a Dockerfile and a .dockerignore, as far as ours go; anything else is an error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from string import Template

KNOWN = {"RUN", "COPY", "ENV", "WORKDIR", "USER", "EXPOSE", "ENTRYPOINT"}


@dataclass(frozen=True)
class Step:
    """One instruction and what stands behind it, continuation lines joined."""

    word: str
    text: str


@dataclass
class Stage:
    """From one FROM to the next."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def last(self, word: str) -> str:
        """What the last such instruction says."""
        return next(step.text for step in reversed(self.steps) if step.word == word)

    @property
    def environ(self) -> dict[str, str]:
        return dict(step.text.split("=", 1) for step in self.steps if step.word == "ENV")

    @property
    def entrypoint(self) -> list[str]:
        words: list[str] = json.loads(self.last("ENTRYPOINT"))
        return words


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile. Raises ValueError for an instruction that is not known here."""
    arguments: dict[str, str] = {}
    found: list[Stage] = []
    for word, rest in _instructions(text):
        if word == "ARG":
            arguments |= dict([rest.split("=", 1)])
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(Template(base).substitute(arguments), name))
        elif word in KNOWN:
            found[-1].steps.append(Step(word, rest))
        else:
            raise ValueError(f"Dockerfile: {word} is an instruction that these tests do not carry out")
    return found


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    plain = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n", "", plain).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def context(folder: Path) -> list[Path]:
    """Files that `COPY .` takes, relative to `folder`: the last pattern of .dockerignore that matches decides."""
    rules = [line for line in (folder / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    tops = [top for top in folder.iterdir() if _kept(top.relative_to(folder), rules)]
    files = [path for top in tops for path in ([top] if top.is_file() else top.rglob("*")) if path.is_file()]
    return sorted(path for path in (file.relative_to(folder) for file in files) if _kept(path, rules))


def _kept(path: Path, rules: list[str]) -> bool:
    kept = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        if any(_matches(part, pattern) for part in (path, *path.parents[:-1])):
            kept = rule.startswith("!")
    return kept


def _matches(path: Path, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.name, pattern.removeprefix("**/"))
    return len(path.parts) == pattern.count("/") + 1 and fnmatchcase(str(path), pattern)
