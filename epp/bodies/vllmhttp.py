"""vLLM's own HTTP API: prompts that come as token ids."""

from __future__ import annotations

import msgspec

from epp.bodies.jsonbody import Loose, Rules, packed, read, text, token_limit
from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.usage import OPENAI, usage_reader
from epp.headers import Headers
from epp.types import Prompt


class _Range(msgspec.Struct, gc=False):
    offset: int | None = None
    length: int | None = None


class _Features(msgspec.Struct, gc=False):
    """Where media stand in for tokens. Only its types matter: the stand-ins are among the token ids."""

    mm_hashes: dict[str, list[str]] | None = None
    mm_placeholders: dict[str, list[_Range]] | None = None


class _Generate(msgspec.Struct, gc=False):
    model: Loose = None
    stream: Loose = None
    cache_salt: str | None = None
    token_ids: list[int] | None = None
    features: _Features | None = None
    sampling_params: Loose = None

    def parsed(self) -> Parsed | None:
        if not self.token_ids:
            return None
        sampling = self.sampling_params if isinstance(self.sampling_params, dict) else {}
        return Parsed(
            api="generate",
            model=text(self.model),
            stream=self.stream is True,
            max_output_tokens=token_limit(sampling.get("max_tokens")),
            prompts=(Prompt(token_ids=packed(self.token_ids)),),
            cache_salt=self.cache_salt or "",
            rewritable=True,
        )


_RULES = Rules(
    msgspec.json.Decoder(_Generate),
    _Generate.parsed,
    missing="invalid generate request: must have non-empty token_ids field",
    mistyped="invalid generate request",
)


class VllmHttpParser:
    """`/inference/v1/generate`: token ids in, usage as the OpenAI APIs tell it."""

    paths: tuple[str, ...] = ("inference/v1/generate",)
    protocols: tuple[str, ...] = ("http", "kubernetes.io/h2c")

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        return read(body, _RULES)

    def reader(self, content_type: str) -> ResponseReader:
        return usage_reader(content_type, OPENAI)
