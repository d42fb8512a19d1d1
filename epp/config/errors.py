"""The one error of a configuration that can't be used, and how it names its choices."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class ConfigError(Exception):
    """A configuration that can't be used; the text names the path, the rule and the remedy or the choices."""

    def __init__(self, path: str, problem: str, line: int = 0) -> None:
        super().__init__(path, problem, line)
        self.path = path
        """Where in the configuration, e.g. `plugins[2].type`; "" = all of it."""
        self.problem = problem
        self.line = line
        """1 = the first; 0 = not known."""

    def __str__(self) -> str:
        line = f"line {self.line}" if self.line else ""
        where = f"{self.path} ({line})" if self.path and line else self.path or line
        return f"{where}: {self.problem}" if where else self.problem


def choices(wanted: str, names: Iterable[str]) -> str:
    """What could have been meant instead of `wanted`, and all there is."""
    have = sorted(set(names))
    close = get_close_matches(wanted, have, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}have: {', '.join(have) or 'none'}"
