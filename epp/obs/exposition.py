"""/metrics as Prometheus asks for it: its text format, or OpenMetrics for those who prefer that."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
OFFERED = {
    ("text/plain", ""): TEXT,
    ("text/plain", "0.0.4"): TEXT,
    ("application/openmetrics-text", ""): OPENMETRICS,
    ("application/openmetrics-text", "1.0.0"): OPENMETRICS,
}
"""(type, version) as asked → content type. Names here are plain, so `escaping` makes no difference."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """One of the types in an Accept header."""

    kind: str
    version: str
    quality: float

    @classmethod
    def read(cls, text: str) -> _Wish:
        kind, *rest = (part.strip().lower() for part in text.split(";"))
        given = {name.strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in rest)}
        return cls(kind, given.get("version", ""), _quality(given.get("q", "1")))


def negotiated(accept: str) -> str:
    """The content type to answer an Accept header with: the first we have in order of its preference, else text.

    As Prometheus' own library for Go does it: wildcards mean text, versions must be those we write.
    """
    wishes = sorted((_Wish.read(part) for part in accept.split(",")), key=lambda wish: -wish.quality)
    found = (OFFERED.get((wish.kind, wish.version)) for wish in wishes if wish.quality > 0)
    return next((kind for kind in found if kind), TEXT)


def page(registry: CollectorRegistry, accept: str, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
    """The page and its headers."""
    kind = negotiated(accept)
    write: Callable[[CollectorRegistry], bytes] = generate_openmetrics if kind == OPENMETRICS else generate_latest
    text = write(registry)
    headers = {"Content-Type": kind, "Vary": "Accept, Accept-Encoding"}
    if not _gzip(accept_encoding):
        return text, headers
    return gzip.compress(text, 1), headers | {"Content-Encoding": "gzip"}


def _gzip(accept_encoding: str) -> bool:
    wishes = [_Wish.read(part) for part in accept_encoding.split(",")]
    return any(wish.kind == "gzip" and wish.quality > 0 for wish in wishes)


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    return quality if 0.0 <= quality <= 1.0 else 1.0
