"""Which parser reads a request: by its path."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from epp.bodies.parsed import Parser
from epp.types import Refused

DEFAULT_PATH: Final = "/v1/completions"
PATHS: Final = [":path", "x-original-path", "x-forwarded-path"]
MOST_PATHS: Final = 256
"""Remembered; clients choose them."""


def request_path(headers: dict[str, tuple[str, ...]]) -> str:
    """The path without query: `:path`, else what a proxy in front kept of it, else the completions path."""
    for name in PATHS:
        values = headers.get(name)
        if values and values[-1]:
            path = values[-1]
            return path.partition("?")[0] if "?" in path else path
    return DEFAULT_PATH


class Parsers:
    """The configured parsers in order. `warnings` tells which were dropped and why.

    A request goes to the parser that claims the longest suffix of its path, counted in whole segments, else to the
    fallback. The first of several claims on one suffix holds.
    """

    def __init__(self, instances: Iterable[Parser]) -> None:
        self.warnings: list[str] = []
        self._active: list[Parser] = []
        self._fallback: Parser | None = None
        self._by_suffix: dict[str, Parser] = {}
        self._found: dict[str, Parser] = {}
        """By path, for the few paths there are."""
        for parser in instances:
            self._add(parser)
        self._segments = max((suffix.count("/") + 1 for suffix in self._by_suffix), default=0)

    def _add(self, parser: Parser) -> None:
        name = type(parser).__name__
        if any(type(parser) is type(active) for active in self._active):
            self.warnings.append(f"parser {name} is configured twice; only the first is used")
        elif self._fallback is not None:
            fallback = type(self._fallback).__name__
            self.warnings.append(f"parser {name} is never asked: {fallback} before it takes every path; put it last")
        else:
            self._active.append(parser)
            self._claim(parser)

    def _claim(self, parser: Parser) -> None:
        if not parser.paths:
            self._fallback = parser
        for suffix in parser.paths:
            self._by_suffix.setdefault(suffix.strip("/"), parser)

    @property
    def active(self) -> tuple[Parser, ...]:
        """Those that may be asked, in order."""
        return tuple(self._active)

    def find(self, path: str) -> Parser:
        """The parser for a path without query. Raises Refused(400) if none claims it and there is no fallback."""
        found = self._found.get(path)
        if found is None:
            found = self._search(path)
            if len(self._found) < MOST_PATHS:
                self._found[path] = found
        return found

    def _search(self, path: str) -> Parser:
        parts = path.strip("/").rsplit("/", self._segments)[-self._segments :] if self._segments else []
        for start in range(len(parts)):
            found = self._by_suffix.get("/".join(parts[start:]))
            if found is not None:
                return found
        if self._fallback is None:
            raise Refused(400, f"no parser registered matching path suffix for: {path}")
        return self._fallback

    def protocols_allow(self, app_protocol: str) -> bool:
        """Whether every parser can serve a pool of this appProtocol; "" = the pool does not say, which allows all."""
        return not app_protocol or all(app_protocol in parser.protocols for parser in self._active if parser.protocols)
