"""token-producer: the prompt as tokens, estimated from its bytes.

Four bytes of text count as one token, and are its id. Real ids need the engine's tokenizer; for telling whether two
prompts begin alike the bytes do as well, and for load a quarter of the bytes is near enough.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from xxhash import xxh64_intdigest

from epp import Media, Prompt, Request, signal
from scorers.placeholders import Estimate, placeholders

TOKEN_BYTES = 4
PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What aligns n bytes, by n % 4."""
MOST_PLACEHOLDERS = 131_072
"""For all media of a prompt together; further ones count 1 each. A few bytes can claim to be an image of any size."""


class Tokens(Struct, frozen=True):
    """The tokens of a request's prompts."""

    prompts: tuple[bytes, ...] = ()
    """Token ids of each prompt, little-endian uint32, 4 bytes each."""
    count: int = 0
    """Of all prompts together."""


class Vllm(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A tokenizing service; accepted for compatibility, not asked."""

    url: str = "http://localhost:8000"
    timeout: str = "5s"
    mm_timeout: str = "30s"


@signal(provides={"tokens": Tokens()}, by_default=True)
class TokenProducer:
    """Count and pack the prompt's tokens: 4 bytes of text a token, images, audio and video as placeholders."""

    reads_prompts = True

    def __init__(
        self,
        *,
        model_name: str = "",
        vllm: Vllm | None = None,
        uds_tokenizer_config: dict[str, Any] | None = None,  # a retired service's settings, not read
        estimate: Estimate | None = None,
    ) -> None:
        choices = {"estimate": estimate, "vllm": vllm, "udsTokenizerConfig": uds_tokenizer_config}
        given = [name for name, value in choices.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; keep one")
        if given and given != ["estimate"] and not model_name:
            raise ValueError(f"{given[0]} needs modelName")
        self._estimate = estimate or Estimate()
        self.warnings = ("no tokenizing service is asked: tokens are estimated from bytes",) if model_name else ()

    def __call__(self, request: Request) -> Tokens:
        prompts = tuple([self._packed(prompt, request) for prompt in request.prompts])
        return Tokens(prompts, sum([len(packed) for packed in prompts]) // TOKEN_BYTES)

    def _packed(self, prompt: Prompt, request: Request) -> bytes:
        if prompt.token_ids is not None:
            return prompt.token_ids
        parts = prompt.parts
        if Media in map(type, parts):
            return self._with_media(parts, request)
        padding = PADDING[sum(map(len, parts)) % TOKEN_BYTES]  # type: ignore[arg-type]  # no Media here
        # In one step: a long prompt is copied once.
        return b"".join([*parts, padding])  # type: ignore[list-item]  # as above

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


class Tokenizer(TokenProducer):
    """The old name of token-producer."""

    deprecated = "use token-producer"
