"""Which parser reads which path."""

from collections.abc import Mapping

import pytest

from epp.bodies import Parsed, Parser, Parsers, ResponseReader, request_path
from epp.bodies.anthropic import AnthropicParser
from epp.bodies.openai import OpenAIParser
from epp.bodies.passthrough import PassthroughParser
from epp.bodies.sglanghttp import SglangHttpParser
from epp.bodies.usage import Unread
from epp.bodies.vllmgrpc import VllmGrpcParser
from epp.bodies.vllmhttp import VllmHttpParser
from epp.types import Refused

openai, anthropic, passthrough = OpenAIParser(), AnthropicParser(), PassthroughParser()
vllmhttp, sglang, vllmgrpc = VllmHttpParser(), SglangHttpParser(), VllmGrpcParser()


class Other:
    """A stranger's parser."""

    paths: tuple[str, ...] = ("/completions/", "chat/completions", "a/b/c/d")
    protocols: tuple[str, ...] = ("http",)

    def parse(self, body: bytes, path: str, headers: Mapping[str, tuple[str, ...]]) -> Parsed:
        return Parsed("other")

    def reader(self, content_type: str) -> ResponseReader:
        return Unread()


@pytest.mark.parametrize(
    ("path", "parser"),
    [
        ("/v1/chat/completions", openai),
        ("/v1/chat/completions/", openai),
        ("chat/completions", openai),
        ("/v1/completions/render", openai),
        ("/v1/messages", anthropic),
        ("/v1/messages/count_tokens", anthropic),
        ("/generate", sglang),
        ("/v1/generate", sglang),
        ("/inference/v1/generate", vllmhttp),
        ("/vllm.grpc.engine.VllmEngine/Generate", vllmgrpc),
        ("/v1/mycompletions", passthrough),
        ("/v1/models", passthrough),
        ("/completions/x", passthrough),
        ("/", passthrough),
        ("", passthrough),
        ("/" * 50_000, passthrough),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_the_longest_suffix_of_whole_segments_wins(path: str, parser: Parser) -> None:
    parsers = Parsers([sglang, openai, anthropic, vllmhttp, vllmgrpc, passthrough])
    assert parsers.find(path) is parser


def test_the_first_claim_on_a_suffix_holds() -> None:
    other = Other()
    assert Parsers([openai, other]).find("/v1/completions") is openai
    assert Parsers([other, openai]).find("/v1/completions") is other
    assert Parsers([other, openai]).find("/x/a/b/c/d") is other


@pytest.mark.parametrize("parsers", [[openai], []], ids=["unclaimed", "none"])
def test_a_path_nobody_claims_is_refused_without_a_fallback(parsers: list[Parser]) -> None:
    with pytest.raises(Refused) as refused:
        Parsers(parsers).find("/v1/models")
    assert refused.value.status == 400
    assert refused.value.message == "no parser registered matching path suffix for: /v1/models"


def test_a_parser_behind_the_fallback_is_dropped_with_a_warning() -> None:
    parsers = Parsers([anthropic, passthrough, openai])
    assert parsers.find("/v1/completions") is passthrough
    assert parsers.warnings == [
        "parser OpenAIParser is never asked: PassthroughParser before it takes every path; put it last"
    ]


def test_a_second_parser_of_a_type_is_dropped_with_a_warning() -> None:
    parsers = Parsers([openai, OpenAIParser()])
    assert parsers.find("/v1/completions") is openai
    assert parsers.warnings == ["parser OpenAIParser is configured twice; only the first is used"]


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({":path": ("/a?b=/c",)}, "/a"),
        ({":path": ("/a",), "x-original-path": ("/b",), "x-forwarded-path": ("/c",)}, "/a"),
        ({":path": ("",), "x-original-path": ("/b?q",), "x-forwarded-path": ("/c",)}, "/b"),
        ({"x-forwarded-path": ("/c",)}, "/c"),
        ({}, "/v1/completions"),
    ],
    ids=str,
)
def test_the_path_comes_from_the_first_header_that_has_it(headers: dict[str, tuple[str, ...]], path: str) -> None:
    assert request_path(headers) == path


@pytest.mark.parametrize(
    ("parsers", "protocol", "allowed"),
    [
        ([openai, vllmgrpc], "", True),
        ([openai, anthropic, vllmhttp, sglang, passthrough], "http", True),
        ([openai, vllmgrpc, passthrough], "kubernetes.io/h2c", True),
        ([openai, vllmgrpc], "http", False),
        ([openai], "kubernetes.io/ws", False),
        ([passthrough, vllmgrpc], "http", True),
    ],
)
def test_every_active_parser_must_speak_the_pools_protocol(parsers: list[Parser], protocol: str, allowed: bool) -> None:
    assert Parsers(parsers).protocols_allow(protocol) is allowed
