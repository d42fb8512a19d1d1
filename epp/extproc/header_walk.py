"""Envoy's header entries, walked by hand.

A header that recurs is remembered whole, and with it the run of such headers that has always followed: clients and
proxies write theirs in an order of their own, so that one comparison passes over most of them.
"""

from __future__ import annotations

from sys import intern
from typing import Final

from epp.headers import Received

FIRST: Final = 0x0A
RAW_VALUE: Final = 0x1A
RECURRING: Final = frozenset({
    ":authority", ":method", ":path", ":scheme", ":status", "accept", "accept-encoding", "accept-language",
    "anthropic-version", "connection", "content-type", "date", "server", "te", "transfer-encoding", "user-agent",
    "x-envoy-upstream-service-time", "x-forwarded-proto", "x-stainless-arch", "x-stainless-async", "x-stainless-lang",
    "x-stainless-os", "x-stainless-package-version", "x-stainless-read-timeout", "x-stainless-retry-count",
    "x-stainless-runtime", "x-stainless-runtime-version",
})  # fmt: skip
"""Headers with few values at a time, which are worth remembering whole; no secrets among them. x-stainless-* come from
the clients of OpenAI and Anthropic."""
MOST_REMEMBERED: Final = 2048
LONGEST_REMEMBERED: Final = 96
LONGEST_RUN: Final = 1024
MOST_REPEATED: Final = 64
"""Values of one name that are added to each other one by one, which takes the square of their number."""
LAST_SHIFT: Final = 28
"""Of a length's seven bits: lengths have 32 bits at most. What is padded to more is left to protobuf."""
ALONE: Final[Received] = {}


class Remembered:
    """A header and the run of remembered ones after it."""

    __slots__ = ("name", "run", "run_headers", "value")

    def __init__(self, name: str, value: tuple[str, ...]) -> None:
        self.name = name
        self.value = value
        self.run: bytes | None = None
        """The entries that came next wherever this one did; None until that was seen once."""
        self.run_headers: Received = ALONE

    def learn(self, run: bytes) -> None:
        """These entries come next. None do if a name among them is repeated, which `walked` has to see."""
        names: Received = {}
        at = many = 0
        while at < len(run) and at < LONGEST_RUN:
            end = at + 2 + run[at + 1]
            known = _remembered.get(run[at:end])
            if known is None:
                break
            names[known.name] = known.value
            many += 1
            at = end
        if len(names) != many or self.name in names:
            at, names = 0, ALONE
        self.run, self.run_headers = run[:at], names

    def shorten(self, run: bytes, came: bytes) -> None:
        """Other entries came next than `run`: keep those that did not change."""
        at = 0
        while at < len(run):
            end = at + 2 + run[at + 1]
            if came[at:end] != run[at:end]:
                break
            at = end
        self.learn(run[:at])


_remembered: Final[dict[bytes, Remembered]] = {}
_names: Final[dict[bytes, str]] = {}


def span(wire: bytes, at: int) -> tuple[int, int]:
    """Where a length-delimited value begins and ends, `at` being where its length stands. IndexError if that is cut
    short or has more bytes than a length."""
    size = wire[at]
    at += 1
    if size >= 0x80:
        size &= 0x7F
        shift = 7
        while (more := wire[at]) >= 0x80:
            if shift == LAST_SHIFT:
                raise IndexError("a length goes on")
            size |= (more & 0x7F) << shift
            shift += 7
            at += 1
        size |= more << shift
        at += 1
    return at, at + size


def walked(wire: bytes, at: int, after: int, headers: Received) -> bool:
    """Fills `headers` with the entries from `at` to `after`; False, or IndexError, if one of them is unusual."""
    learner: Remembered | None = None
    found = began = 0
    while at < after:
        # Right for entries below 128 bytes; a longer one is not among those remembered.
        end = at + 2 + wire[at + 1]
        known = _remembered.get(wire[at:end])
        if known is not None:
            name, value = known.name, known.value
        else:
            if learner is not None:
                learner.learn(wire[began:at])
                learner = None
            name, value, end = _pair(wire, at, after)
            if not value:
                return False
        headers.setdefault(name, value)
        found += 1
        if len(headers) != found:
            _repeat(headers, name, value)
            found -= 1
        at = end
        if known is None or learner is not None:
            continue
        run = known.run
        if run is None:
            learner, began = known, at
        elif run:
            end = at + len(run)
            if wire[at:end] != run:
                known.shorten(run, wire[at:end])
                continue
            headers.update(known.run_headers)
            found += len(known.run_headers)
            if len(headers) != found:
                # A header of the run was there before it.
                known.learn(b"")
                return False
            at = end
    if learner is not None and at == after:
        learner.learn(wire[began:at])
    return at == after


def _repeat(headers: Received, name: str, value: tuple[str, ...]) -> None:
    """One more value of this header. IndexError where there are many, so that protobuf reads them."""
    before = headers[name]
    if len(before) > MOST_REPEATED:
        raise IndexError("a header comes very often")
    headers[name] = (*before, *value)


def _pair(wire: bytes, at: int, after: int) -> tuple[str, tuple[str, ...], int]:
    """Name and value of one header as Envoy writes it: `key`, then `raw_value`; and where it ends. No value if it is
    written otherwise."""
    unusual = "", (), at
    start = at + 2
    end = start + wire[at + 1]
    if end - start >= 0x80:
        start, end = span(wire, at + 1)
    if wire[at] != FIRST or end > after or start + 2 > end or wire[start] != FIRST:
        return unusual
    split = start + 2 + wire[start + 1]
    if split >= start + 0x82 or split > end:
        return unusual
    name = _named(wire[start + 2 : split])
    if split == end:
        return name, ("",), end
    if wire[split] != RAW_VALUE or split + 2 > end:
        return unusual
    first = split + 2
    stop = first + wire[split + 1]
    if stop - first >= 0x80:
        first, stop = span(wire, split + 1)
    if stop != end:
        return unusual
    value = (wire[first:end].decode("utf-8", "replace"),)
    if name in RECURRING and end - at <= LONGEST_REMEMBERED:
        if len(_remembered) >= MOST_REMEMBERED:
            _remembered.clear()
        _remembered[wire[at:end]] = Remembered(name, value)
    return name, value, end


def _named(sent: bytes) -> str:
    name = _names.get(sent)
    if name is None:
        # The few names there are recur in every open stream.
        name = intern(sent.decode().lower())
        if len(_names) >= MOST_REMEMBERED:
            _names.clear()
        _names[sent] = name
    return name
