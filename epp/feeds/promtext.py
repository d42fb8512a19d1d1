"""Single families out of a Prometheus text page, read in place.

An engine's page is 50 KB of histograms of which five gauges matter: their names are searched in the bytes and only the
lines found are parsed. Understands the text format and the parts of OpenMetrics that sample lines share with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

MAX_LINE_BYTES = 256 * 1024
"""Longer sample lines are skipped: it bounds what one line of a hostile page can cost."""
MAX_KEPT_LABELS_BYTES = 4096
"""Of longer label blocks what was looked up is not remembered."""
SLACK_BYTES = 512
"""How far a family may have moved since the last page: values grow and shrink by a few digits each."""

Places = dict[str, int]
"""Where each family began on the last page of an endpoint."""

_AFTER_NAME = (b"{", b" ", b"\t")
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
        short = len(self.block) <= MAX_KEPT_LABELS_BYTES
        return _label(self.block, name) if short else _label.__wrapped__(self.block, name)


@lru_cache(maxsize=1024)
def _label(block: bytes, name: str) -> str:
    """Remembered: the blocks of configuration families are long and the same on every page."""
    wanted = name.encode()
    for found in _LABEL.finditer(block):
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


def samples(page: bytes, spec: Spec, places: Places | None = None) -> list[Sample]:
    """The series of `page` that `spec` admits, in page order; of a series written twice the newest, else the first.

    A counter is found under `name` and, if that is absent, under `name_total`. Lines that can't be read are skipped.
    With `places`, what the family's place on the endpoint's last page tells is looked at first, and the whole page only
    if the family is not there: the lines of a family stand together, as the format demands.
    """
    name = spec.name.encode()
    if places is None:
        return _admitted(page, spec, _lines(page, name))
    if (near := places.get(spec.name)) is not None:
        lines = _group(page, name, near)
        if found := _admitted(page, spec, lines):
            places[spec.name] = lines[0][0] - len(name)
            return found
    lines = [(end, stop) for end, stop in _lines(page, name) if _own(page, end)]
    if lines and _together(page, name, lines):
        places[spec.name] = lines[0][0] - len(name)
    return _admitted(page, spec, lines)


def _admitted(page: bytes, spec: Spec, lines: Iterable[tuple[int, int]]) -> list[Sample]:
    exact: dict[bytes, Sample] = {}
    totals: dict[bytes, Sample] = {}
    for end, stop in lines:
        total = page.startswith(b"_total", end)
        sample = _sample(page, end + 6 if total else end, stop)
        if sample is not None:
            _keep(totals if total else exact, sample)
    return [sample for sample in (exact or totals).values() if spec.admits(sample)]


def _group(page: bytes, name: bytes, near: int) -> list[tuple[int, int]]:
    """As `_lines`, of the family's lines that stand together about `near`; none if they moved away or reach further."""
    at = max(0, near - SLACK_BYTES)
    while (at := page.find(b"\n" + name, at, near + SLACK_BYTES)) >= 0 and not _own(page, at + 1 + len(name)):
        at += 1
    if at < 0 or page.startswith(name, _line_before(page, at)):
        return []
    found = []
    at += 1
    while (own := page.startswith(name, at) and _own(page, at + len(name))) or page.startswith(b"#", at):
        end = at + len(name)
        stop = page.find(b"\n", at)
        stop = len(page) if stop < 0 else stop
        if own and stop - end <= MAX_LINE_BYTES:
            found.append((end, stop))
        at = stop + 1
    return found


def _line_before(page: bytes, newline: int) -> int:
    """Where the last line that is no comment begins, of those that end at `newline` or before."""
    begin = page.rfind(b"\n", 0, newline) + 1
    while begin > 0 and page.startswith(b"#", begin):
        begin = page.rfind(b"\n", 0, begin - 1) + 1
    return begin


def _own(page: bytes, end: int) -> bool:
    """The name that ends there is the family's own, not another one's that begins with it."""
    return page[end : end + 1] in _AFTER_NAME or page.startswith(b"_total", end)


def _together(page: bytes, name: bytes, lines: list[tuple[int, int]]) -> bool:
    """Each line begins, without blanks, where the one before ends."""
    begins = [end - len(name) for end, _ in lines]
    stops = [begins[0] - 1, *(stop for _, stop in lines)]
    return (
        begins[0] > 0 and page[begins[0] - 1] == 0x0A and all(a == b + 1 for a, b in zip(begins, stops, strict=False))
    )


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
