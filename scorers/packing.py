"""The prompts of a request as tokens: what token-producer does each time, without its settings.

A module of its own since a compiled one keeps no annotations, by which settings are read.
"""

from __future__ import annotations

from typing import final

from xxhash import xxh64_intdigest

from epp import Media, Prompt, Request
from scorers.placeholders import Estimate, placeholders

TOKEN_BYTES = 4
PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What aligns n bytes, by n % 4."""
MOST_PLACEHOLDERS = 131_072
"""For all media of a prompt together; further ones count 1 each. A few bytes can claim to be an image of any size."""


@final
class Tokens:
    """The tokens of a request's prompts."""

    __slots__ = ("count", "prompts")

    def __init__(self, prompts: tuple[bytes, ...] = (), count: int = 0) -> None:
        self.prompts = prompts
        """Token ids of each prompt, little-endian uint32, 4 bytes each."""
        self.count = count
        """Of all prompts together."""

    def __repr__(self) -> str:
        return f"Tokens({self.prompts!r}, {self.count})"


@final
class Packer:
    """Packs prompts; media count as `estimate` says."""

    __slots__ = ("_estimate",)

    def __init__(self, estimate: Estimate) -> None:
        self._estimate = estimate

    def measure(self, request: Request) -> Tokens:
        """The tokens of a request."""
        prompts: list[bytes] = []
        size = 0
        for prompt in request.prompts:
            packed = self._packed(prompt, request)
            prompts.append(packed)
            size += len(packed)
        return Tokens(tuple(prompts), size // TOKEN_BYTES)

    def _packed(self, prompt: Prompt, request: Request) -> bytes:
        if prompt.token_ids is not None:
            return prompt.token_ids
        parts, size = prompt.parts, 0
        pieces: list[bytes] = []
        for part in parts:
            if not isinstance(part, bytes):
                return self._with_media(parts, request)
            pieces.append(part)
            size += len(part)
        pieces.append(PADDING[size % TOKEN_BYTES])
        # In one step: a long prompt is copied once.
        return b"".join(pieces)

    def _with_media(self, parts: list[bytes | Media], request: Request) -> bytes:
        """Text and placeholders in order; media begin at a whole token."""
        packed = bytearray()
        left = MOST_PLACEHOLDERS
        for part in parts:
            if isinstance(part, Media):
                packed += PADDING[len(packed) % TOKEN_BYTES]
                token = (xxh64_intdigest(part.content.encode("utf-8", "surrogatepass")) & 0xFFFF_FFFF).to_bytes(
                    TOKEN_BYTES, "little"
                )
                count = max(1, min(placeholders(part, request, self._estimate), left))
                packed += token * count
                left -= count
            else:
                packed += part
        packed += PADDING[len(packed) % TOKEN_BYTES]
        return bytes(packed)
