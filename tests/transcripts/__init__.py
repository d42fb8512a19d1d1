"""Messages recorded from real Envoys, one JSON file a case; `python -m tests.e2e.record` writes them.

Keys of a file: `envoy` (its version), `case`, `about`, `setup` (what differs from the default Setup of tests/e2e),
`client` (what the client got), `end` (how the stream ended for the server: eof, cancelled or returned) and `messages`,
in the order they passed the server: `by` (envoy or picker), `b64` (or `zlib`: compressed, then base64) and a summary.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
COMPRESS_BEYOND = 4096


@dataclass(frozen=True)
class Wire:
    """One message as it was on the wire."""

    by: str
    wire: bytes


@dataclass(frozen=True)
class Transcript:
    """One recorded stream."""

    envoy: str
    case: str
    setup: dict[str, Any]
    client: dict[str, Any]
    end: str
    messages: tuple[Wire, ...]

    def __str__(self) -> str:
        return f"{self.envoy}-{self.case}"

    def from_envoy(self) -> list[bytes]:
        return [message.wire for message in self.messages if message.by == "envoy"]


def load(path: Path) -> Transcript:
    kept = json.loads(path.read_text())
    messages = tuple(Wire(m["by"], decoded(m)) for m in kept["messages"])
    return Transcript(kept["envoy"], kept["case"], kept["setup"], kept["client"], kept["end"], messages)


def every(case: str = "*") -> Iterator[Transcript]:
    """All transcripts of a case, oldest Envoy first; `case` may be a glob pattern."""
    paths = sorted(FOLDER.glob("*.json"))
    return (load(path) for path in paths if fnmatchcase(path.stem.partition("-")[2], case))


def encoded(wire: bytes) -> dict[str, str]:
    if len(wire) > COMPRESS_BEYOND:
        return {"zlib": base64.b64encode(zlib.compress(wire, 9)).decode()}
    return {"b64": base64.b64encode(wire).decode()}


def decoded(message: dict[str, str]) -> bytes:
    if "zlib" in message:
        return zlib.decompress(base64.b64decode(message["zlib"]))
    return base64.b64decode(message["b64"])
