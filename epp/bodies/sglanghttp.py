"""SGLang's own HTTP API: prompts that come as token ids."""

from __future__ import annotations

import msgspec

from epp.bodies.jsonbody import Loose, Rules, packed, read, token_limit
from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.usage import SGLANG, usage_reader
from epp.headers import Headers
from epp.types import Prompt, Refused


class _Generate(msgspec.Struct, gc=False):
    input_ids: list[int] | None = None
    extra_key: str | None = None
    sampling_params: Loose = None
    stream: bool | None = None

    def parsed(self) -> Parsed | None:
        if not self.input_ids:
            return None
        sampling = self.sampling_params if isinstance(self.sampling_params, dict) else {}
        return Parsed(
            api="generate",
            stream=self.stream is True,
            max_output_tokens=token_limit(sampling.get("max_new_tokens")),
            prompts=(Prompt(token_ids=packed(self.input_ids)),),
            cache_salt=self.extra_key or "",
        )


_RULES = Rules(
    msgspec.json.Decoder(_Generate),
    _Generate.parsed,
    missing="invalid generate request: must have non-empty input_ids field",
    mistyped="invalid generate request",
    malformed="invalid generate request",
)


class SglangHttpParser:
    """`/generate`: token ids in, usage in `meta_info`. The model is whatever the server runs."""

    paths: tuple[str, ...] = ("generate",)
    protocols: tuple[str, ...] = ("http", "kubernetes.io/h2c")

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        if path.strip("/") != "generate":
            raise Refused(400, f"unsupported path: {path}; this parser reads /generate only")
        return read(body, _RULES)

    def reader(self, content_type: str) -> ResponseReader:
        return usage_reader(content_type, SGLANG)
