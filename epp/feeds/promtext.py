"""Single families out of a Prometheus text page, read in place.

An engine's page is 50 KB of histograms of which five gauges matter: their names are searched in the bytes and only the
lines found are parsed. Understands the text format and the parts of OpenMetrics that sample lines share with it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from epp.feeds.spec import Spec, unescaped

MAX_LINE_BYTES = 256 * 1024
"""Longer sample lines are skipped: it bounds what one line of a hostile page can cost."""
MAX_KEPT_LABELS_BYTES = 4096
"""Of longer label blocks what was looked up is not remembered."""
SLACK_BYTES = 512
"""How far a family may have moved since the last page: values grow and shrink by a few digits each."""
MAX_KEPT_FAMILY_BYTES = 16 * 1024
"""Of larger families nothing is remembered: that would be held for each endpoint."""

_AFTER_NAME = (b"{", b" ", b"\t", b"_total")
_BEGINS = (b"# HELP ", b"# TYPE ", b"# EOF")
_BLANK = (b" ", b"\t", b"\n", b"\r")
_SERIES = re.compile(
    rb"""(?:[ \t]*(\{[^"}]*(?:"[^"\\]*(?:\\.[^"\\]*)*"[^"}]*)*\})[ \t]*|[ \t]+)"""  # labels, or a blank
    rb"([-+.0-9a-zA-Z]+)"  # value
    rb"(?:[ \t]+([-+.0-9eE]+))?"  # timestamp
    rb"[ \t]*(?:\#.*)?\r?"  # exemplar
)
_VALUE = re.compile(rb"[-+.0-9a-zA-Z]+")
_LABEL = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"([^"\\]*(?:\\.[^"\\]*)*)"')


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
            return unescaped(found[2])
    return ""


class Family:
    """How a family stood on the last page of an endpoint: its lines but for their numbers, which alone change.

    The next page is read by it if they stand there again, after the same line that tells the family's type and before
    another family's: the lines of a family stand together, as the format demands.
    """

    __slots__ = ("_at", "_head", "_lines", "_name")

    def __init__(self, name: bytes, head: bytes, at: int, lines: list[tuple[bytes, bytes | None]]) -> None:
        """`head` was found at `at`, then `lines`: each up to its number, and its labels or, if not wanted, None."""
        self._name = name
        self._head = head
        self._at = at
        self._lines = lines

    def read(self, page: bytes) -> list[Sample] | None:
        """The series wanted; None if anything else has changed."""
        begin = page.find(self._head, max(0, self._at - SLACK_BYTES), self._at + SLACK_BYTES)
        if begin < 0 or (begin > 0 and page[begin - 1] != 0x0A):
            return None
        self._at = begin
        at = begin + len(self._head)
        found = []
        for stem, block in self._lines:
            if not page.startswith(stem, at):
                return None
            at += len(stem)
            stop = page.find(b"\n", at)
            if stop < 0 or _VALUE.fullmatch(page, at, stop) is None:
                return None
            if block is not None:
                try:
                    found.append(Sample(block, float(page[at:stop]), 0.0))
                except ValueError:
                    return None
            at = stop + 1
        return found if self._over(page, at) else None

    def _over(self, page: bytes, at: int) -> bool:
        """Nothing of the family can follow there."""
        if page.startswith(b"#", at):
            return page.startswith(_BEGINS, at)
        own = page.startswith(self._name, at) and _own(page, at + len(self._name))
        return not own and not page.startswith(_BLANK, at)


Places = dict[str, Family]
"""What is remembered of an endpoint's last page, by the text of the spec."""


def samples(page: bytes, spec: Spec, places: Places | None = None) -> list[Sample]:
    """The series of `page` that `spec` admits, in page order; of a series written twice the newest, else the first.

    A counter is found under `name` and, if that is absent, under `name_total`. Lines that can't be read are skipped.
    The whole page is searched, except for what `places` tells to be as on the endpoint's last page; it is changed.
    """
    if places is not None and (known := places.get(spec.text)) is not None:
        again = known.read(page)
        if again is not None:
            return again
        del places[spec.text]
    name = spec.name.encode()
    lines = _lines(page, name)
    if places is not None and (family := _learned(page, name, lines, spec)) is not None:
        places[spec.text] = family
    return _admitted(page, spec, lines)


def _learned(page: bytes, name: bytes, lines: list[tuple[int, int]], spec: Spec) -> Family | None:
    """None unless the lines stand together after that of the type, each a series of its own and a number."""
    if not lines or lines[-1][1] - lines[0][0] > MAX_KEPT_FAMILY_BYTES:
        return None
    first = lines[0][0] - len(name)
    head = page[page.rfind(b"\n", 0, max(0, first - 1)) + 1 : first]
    if not head.startswith(b"# TYPE " + name + b" "):
        return None
    kept: list[tuple[bytes, bytes | None]] = []
    seen, begin = set(), first
    for end, stop in lines:
        match = _SERIES.fullmatch(page, end, stop)
        if end - len(name) != begin or match is None or match.end(2) != stop or match[1] in seen:
            return None
        sample = Sample(match[1] or b"", 0.0, 0.0)
        seen.add(match[1])
        kept.append((page[begin : match.start(2)], sample.block if _admits(spec, sample) else None))
        begin = stop + 1
    return Family(name, head, first - len(head), kept)


def _admitted(page: bytes, spec: Spec, lines: list[tuple[int, int]]) -> list[Sample]:
    exact: dict[bytes, Sample] = {}
    totals: dict[bytes, Sample] = {}
    for end, stop in lines:
        total = page.startswith(b"_total", end)
        sample = _sample(page, end + 6 if total else end, stop)
        if sample is not None:
            _keep(totals if total else exact, sample)
    return [sample for sample in (exact or totals).values() if _admits(spec, sample)]


def _admits(spec: Spec, sample: Sample) -> bool:
    return all(sample.label(name) == value for name, value in spec.labels)


def _own(page: bytes, end: int) -> bool:
    """The name that ends there is the family's own, not another one's that begins with it."""
    return page.startswith(_AFTER_NAME, end)


def _lines(page: bytes, name: bytes) -> list[tuple[int, int]]:
    """(end of the name, end of the line) of each line of the family, that of its total included."""
    found = []
    at = page.find(name)
    while at >= 0:
        end = at + len(name)
        if _own(page, end) and _starts_line(page, at):
            stop = page.find(b"\n", end)
            stop = len(page) if stop < 0 else stop
            if stop - end <= MAX_LINE_BYTES:
                found.append((end, stop))
            end = stop
        at = page.find(name, end)
    return found


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
