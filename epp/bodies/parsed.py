"""What the picker wants to know of a request body, and who reads it."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from epp.headers import Headers
from epp.types import Prompt, Usage

LONGEST_MODEL = 1_024
"""Characters of a model's name: it is kept as long as the response takes, and with the last decisions."""


class Parsed(Struct, array_like=True):
    """What a parser read from one request body."""

    api: str
    """chat, completions, embeddings, responses, conversations, images, messages, count_tokens, generate,
    grpc-generate, grpc-embed or raw."""
    model: str = ""
    """"" if the body names none."""
    stream: bool = False
    max_output_tokens: int | None = None
    prompts: tuple[Prompt, ...] = ()
    cache_salt: str = ""
    skip_response: bool = False
    """Nobody reads the response."""
    rewritable: bool = False
    """set_model works on this body."""


class ResponseReader(Protocol):
    """Reads one response as it passes. Never raises: a response is the client's business, whatever it holds."""

    usage: Usage | None
    """Final after `end`; None if the engine told none."""
    events: int
    """Streamed data events seen, the closing [DONE] not among them."""
    complete: bool
    """The engine said that nothing more comes, whether or not the body's end was seen: some clients hang up then."""

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the body, cut anywhere."""

    def end(self) -> None:
        """The body is complete."""


class Parser(Protocol):
    """Reads the bodies of some paths. Holds no state: one instance serves every request."""

    paths: tuple[str, ...]
    """Claimed path suffixes without leading slash; none = the fallback for all paths nobody claims."""
    protocols: tuple[str, ...]
    """Kubernetes appProtocol values it can be used with; none = any."""

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        """Read a complete request body; `path` has no query. Raises Refused(400) for what the engine cannot take."""

    def reader(self, content_type: str) -> ResponseReader:
        """A fresh reader for one response of this content type ("" if it has none)."""
