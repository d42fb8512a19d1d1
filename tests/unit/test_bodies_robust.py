"""Whatever a client sends, a parser reads it or refuses it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.bodies import Parsed, Parser, set_model
from epp.bodies.anthropic import AnthropicParser
from epp.bodies.openai import OpenAIParser
from epp.bodies.passthrough import PassthroughParser
from epp.bodies.sglanghttp import SglangHttpParser
from epp.bodies.vllmgrpc import SERVICE, VllmGrpcParser
from epp.bodies.vllmhttp import VllmHttpParser
from epp.types import Refused

CLASSES: list[type[Parser]] = [
    OpenAIParser,
    AnthropicParser,
    VllmHttpParser,
    SglangHttpParser,
    VllmGrpcParser,
    PassthroughParser,
]
CLAIMS = [(kind(), "/v1/" + path) for kind in CLASSES for path in kind().paths or ("x",)]
NAMES = ["messages", "prompt", "input", "items", "token_ids", "input_ids", "model", "stream", "tools", "content"]
NAMES += ["role", "type", "text", "system", "sampling_params", "max_tokens", "image_url", "url", "features", "Prompt"]

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["text", "image_url", "\ud800"])
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=6).map(lambda fields: json.dumps(fields).encode())
frames = st.binary(max_size=60).map(lambda body: b"\0" + len(body).to_bytes(4, "big") + body)


def outcome(parser: Parser, path: str, body: bytes) -> Parsed | None:
    try:
        return parser.parse(body, path, {})
    except Refused as error:
        refused = error
    assert refused.status == 400
    assert refused.message
    return None


@given(st.sampled_from(CLAIMS), st.binary(max_size=80) | objects | frames)
def test_a_body_is_read_or_refused(claim: tuple[Parser, str], body: bytes) -> None:
    parsed = outcome(*claim, body)
    assert parsed is None or all(prompt.parts == [] or prompt.token_ids is None for prompt in parsed.prompts)


@given(st.sampled_from(CLAIMS), objects)
def test_what_is_rewritable_can_be_rewritten(claim: tuple[Parser, str], body: bytes) -> None:
    parsed = outcome(*claim, body)
    if parsed is not None and parsed.rewritable:
        again = outcome(*claim, set_model(body, "new"))
        assert again is not None
        assert (again.model, again.prompts) == ("new", parsed.prompts)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[1])
def test_a_deep_body_is_read_or_refused(claim: tuple[Parser, str]) -> None:
    for name in NAMES:
        outcome(*claim, b'{"%s": ' % name.encode() + b'[{"content": ' * 20_000)


def test_a_claim_of_each_parser_is_among_the_cases() -> None:
    assert f"/v1/{SERVICE}/Generate" in [path for _, path in CLAIMS]
    assert len({type(parser) for parser, _ in CLAIMS}) == len(CLASSES)
