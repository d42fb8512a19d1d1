"""What to read of a metrics page: a family, or those of its series that have certain labels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ESCAPE = re.compile(rb'\\([\\"n])')
_SPEC = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\}\s*)?", re.DOTALL)
_PAIR = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",{}]*))\s*(?:,|$)')


class SpecError(ValueError):
    """A metric spec that can't be read; the text quotes it and shows the form."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Which series of which family: every label must have its value; "" also matches a series without the label."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    text: str = field(init=False, repr=False, compare=False)
    """All of it in one, by which it can be looked up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", f"{self.name}{self.labels or ''}")


def parse_spec(text: str) -> Spec | None:
    """`name` or `name{label=value, other="value"}`; None for an empty text, which switches the metric off."""
    if not text.strip():
        return None
    match = _SPEC.fullmatch(text)
    if match is None:
        raise _bad_spec(text, "it is neither a name nor a name with labels in braces")
    return Spec(match[1], tuple(_pairs(text, match[2] or "")))


def _pairs(text: str, inner: str) -> Iterator[tuple[str, str]]:
    at = 0
    while inner[at:].strip():
        match = _PAIR.match(inner, at)
        if match is None:
            raise _bad_spec(text, f"{inner[at:].strip()!r} is not a label=value pair")
        quoted = match[2]
        yield match[1], match[3] if quoted is None else unescaped(quoted.encode())
        at = match.end()


def _bad_spec(text: str, why: str) -> SpecError:
    return SpecError(f'{text!r} is no metric spec: {why}; write name or name{{label="value"}}')


def unescaped(value: bytes) -> str:
    """The value of a label as it is meant."""
    if b"\\" in value:
        value = _ESCAPE.sub(lambda found: b"\n" if found[1] == b"n" else found[1], value)
    return value.decode(errors="replace")
