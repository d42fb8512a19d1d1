"""Bodies that carry token ids: vLLM's and SGLang's own HTTP APIs. And the parser that reads nothing."""

import json
import struct
from typing import Any

import pytest

from epp.bodies import Parsed, Parser
from epp.bodies.passthrough import PassthroughParser
from epp.bodies.sglanghttp import SglangHttpParser
from epp.bodies.vllmhttp import VllmHttpParser
from epp.types import Prompt, Refused

VLLM, SGLANG = "/inference/v1/generate", "/generate"
PROMPT = Prompt(token_ids=struct.pack("<2I", 1, 4294967295))


def parse(path: str, body: Any) -> Parsed:
    parser: Parser = VllmHttpParser() if path == VLLM else SglangHttpParser()
    return parser.parse(body if isinstance(body, bytes) else json.dumps(body).encode(), path, {})


def refusal(path: str, body: Any) -> str:
    with pytest.raises(Refused) as refused:
        parse(path, body)
    assert refused.value.status == 400
    return refused.value.message


def test_vllm_generate_is_read() -> None:
    body = {
        "model": "m",
        "token_ids": [1, 4294967295],
        "sampling_params": {"max_tokens": 5},
        "features": {"mm_hashes": {"image": ["h"]}, "mm_placeholders": {"image": [{"offset": 0, "length": 1}]}},
        "cache_salt": "s",
        "stream": True,
    }
    assert parse(VLLM, body) == Parsed("generate", "m", True, 5, (PROMPT,), "s", rewritable=True)


def test_sglang_generate_is_read_without_a_model() -> None:
    body = {
        "model": "m",
        "input_ids": [1, 4294967295],
        "sampling_params": {"max_new_tokens": 5},
        "extra_key": "s",
        "stream": True,
    }
    assert parse(SGLANG, body) == Parsed("generate", "", True, 5, (PROMPT,), "s")


@pytest.mark.parametrize("path", ["generate", "/generate", "/generate/"])
def test_sglang_takes_its_own_path(path: str) -> None:
    assert SglangHttpParser().parse(b'{"input_ids":[1]}', path, {}).api == "generate"


def test_sglang_takes_no_longer_path() -> None:
    with pytest.raises(Refused, match="unsupported path: /v1/generate"):
        SglangHttpParser().parse(b'{"input_ids":[1]}', "/v1/generate", {})


@pytest.mark.parametrize("sampling", [None, [], 7, {}, {"max_tokens": -1, "max_new_tokens": "5"}], ids=str)
@pytest.mark.parametrize(("path", "field"), [(VLLM, "token_ids"), (SGLANG, "input_ids")])
def test_an_output_limit_that_is_none_is_no_error(path: str, field: str, sampling: Any) -> None:
    assert parse(path, {field: [1], "sampling_params": sampling}).max_output_tokens is None


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (VLLM, b"", "error unmarshaling request bodyMap: unexpected end of JSON input"),
        (VLLM, {}, "invalid generate request: must have non-empty token_ids field"),
        (VLLM, {"token_ids": []}, "invalid generate request: must have non-empty token_ids field"),
        (VLLM, {"token_ids": [-1]}, "invalid generate request: token ids must be integers from 0 to 4294967295"),
        (
            VLLM,
            {"token_ids": [1], "features": 1},
            "invalid generate request: Expected `object | null`, got `int` - at `$.features`",
        ),
        (SGLANG, b"", "invalid generate request: unexpected end of JSON input"),
        (SGLANG, {"text": "x"}, "invalid generate request: must have non-empty input_ids field"),
        (
            SGLANG,
            {"input_ids": [[1]]},
            "invalid generate request: Expected `int`, got `array` - at `$.input_ids[0]`",
        ),
        (
            SGLANG,
            {"input_ids": [1], "extra_key": ["a"]},
            "invalid generate request: Expected `str | null`, got `array` - at `$.extra_key`",
        ),
    ],
    ids=str,
)
def test_a_wrong_body_is_refused_with_the_reason(path: str, body: Any, text: str) -> None:
    assert refusal(path, body) == text


def test_the_passthrough_parser_reads_neither_body_nor_response() -> None:
    parser = PassthroughParser()
    reader = parser.reader("application/json")
    reader.feed(b'{"usage":{"prompt_tokens":1,"completion_tokens":1}}')
    reader.end()
    assert (parser.parse(b"\xff", "/x", {}), reader.usage, parser.paths) == (Parsed("raw"), None, ())
