"""token-producer: the prompt as tokens, estimated from its bytes.

Four bytes of text count as one token, and are its id. Real ids need the engine's tokenizer; for telling whether two
prompts begin alike the bytes do as well, and for load a quarter of the bytes is near enough.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from epp import signal
from scorers.packing import TOKEN_BYTES, Packer, Tokens
from scorers.placeholders import Estimate

__all__ = ["TOKEN_BYTES", "TokenProducer", "Tokenizer", "Tokens"]


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
        self.measure = Packer(estimate or Estimate()).measure
        self.warnings = ("no tokenizing service is asked: tokens are estimated from bytes",) if model_name else ()


class Tokenizer(TokenProducer):
    """The old name of token-producer."""

    deprecated = "use token-producer"
