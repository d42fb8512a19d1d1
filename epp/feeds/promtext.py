"""Single families out of a Prometheus text page, read in place.

An engine's page is 50 KB of histograms of which five gauges matter: their names are searched in the bytes and only the
lines found are parsed. Understands the text format and the parts of OpenMetrics that sample lines share with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MAX_LINE_BYTES = 256 * 1024
"""Longer sample lines are skipped: it bounds what one line of a hostile page can cost."""

_SERIES = re.compile(
    rb"""(?:[ \t]*(\{[^"}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"}]*)*\})[ \t]*|[ \t]+)"""  # labels, or a blank
    rb"([-+.0-9a-zA-Z]+)"  # value
    rb"(?:[ \t]+([-+.0-9eE]+))?"  # timestamp
    rb"[ \t]*(?:\#.*)?\r?"  # exemplar
)
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"')
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

    def admits(self, sample: Sample) -> bool:
        return all(sample.label(name) == value for name, value in self.labels)


class Sample(NamedTuple):
    """One series of a family."""

    block: bytes
    """Its labels as written, braces included; empty if it has none."""
    value: float
    timestamp: float
    """In the page's own unit; 0 if not given."""

    def label(self, name: str) -> str:
        """Empty if it has none: to Prometheus that is the same."""
        wanted = name.encode()
        for found in _LABEL.finditer(self.block):
            if found[1] == wanted:
                return _unescaped(found[2])
        return ""


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
        yield match[1], match[3] if quoted is None else _unescaped(quoted.encode())
        at = match.end()


def _bad_spec(text: str, why: str) -> SpecError:
    return SpecError(f'{text!r} is no metric spec: {why}; write name or name{{label="value"}}')


def samples(page: bytes, spec: Spec) -> list[Sample]:
    """The series of `page` that `spec` admits, in page order; of a series written twice the newest, else the first.

    A counter is found under `name` and, if that is absent, under `name_total`. Lines that can't be read are skipped.
    """
    exact: dict[bytes, Sample] = {}
    totals: dict[bytes, Sample] = {}
    for end, stop in _lines(page, spec.name.encode()):
        total = page.startswith(b"_total", end)
        sample = _sample(page, end + 6 if total else end, stop)
        if sample is not None:
            _keep(totals if total else exact, sample)
    return [sample for sample in (exact or totals).values() if spec.admits(sample)]


def _lines(page: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """(end of the name, end of the line) of each line that begins with `name`, be it only as a prefix."""
    at = page.find(name)
    while at >= 0:
        end = at + len(name)
        if _starts_line(page, at):
            stop = page.find(b"\n", end)
            stop = len(page) if stop < 0 else stop
            if stop - end <= MAX_LINE_BYTES:
                yield end, stop
            end = stop
        at = page.find(name, end)


def _starts_line(page: bytes, at: int) -> bool:
    while at > 0 and page[at - 1] in b" \t":
        at -= 1
    return at == 0 or page[at - 1] == 0x0A


def _sample(page: bytes, end: int, stop: int) -> Sample | None:
    match = _SERIES.fullmatch(page, end, stop)
    if match is None:
        return None
    block, value, timestamp = match.groups()
    try:
        return Sample(block or b"", float(value), float(timestamp or 0))
    except ValueError:
        return None


def _keep(series: dict[bytes, Sample], sample: Sample) -> None:
    known = series.get(sample.block)
    if known is None or sample.timestamp > known.timestamp:
        series[sample.block] = sample


def _unescaped(value: bytes) -> str:
    if b"\\" in value:
        value = _ESCAPE.sub(lambda found: b"\n" if found[1] == b"n" else found[1], value)
    return value.decode(errors="replace")
