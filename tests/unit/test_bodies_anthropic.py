"""Bodies of the Anthropic Messages API."""

import json
from typing import Any

import pytest

from epp.bodies import Parsed
from epp.bodies.anthropic import AnthropicParser
from epp.types import Media, Prompt, Refused


def parse(body: Any, path: str = "/v1/messages") -> Parsed:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return AnthropicParser().parse(sent, path, {})


def prompt_of(*blocks: Any) -> list[Any]:
    return parse({"messages": [{"role": "user", "content": list(blocks)}]}).prompts[0].parts[1:]


def test_the_fields_are_read() -> None:
    body = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    assert parse(body) == Parsed("messages", "m", True, 9, (Prompt([b"user", b"hi"]),), rewritable=True)


def test_a_prompt_is_tools_then_system_then_the_messages() -> None:
    body = b'{"system":"Be","messages":[{"role":"user","content":"hi"}],"tools":[{"name":  "t"}]}'
    assert parse(body).prompts == (Prompt([b'[{"name":  "t"}]', b"Be", b"user", b"hi"]),)


def test_a_billing_line_that_changes_with_every_request_is_no_part_of_the_prompt() -> None:
    system = [{"type": "text", "text": text} for text in ("x-anthropic-billing-header: 1a2b", "Be", " kind")]
    assert parse({"system": system, "messages": [{}]}).prompts == (Prompt([b"Be kind"]),)


@pytest.mark.parametrize(
    ("block", "parts"),
    [
        ({"type": "text", "text": "hi"}, [b"hi"]),
        ({"type": "thinking", "thinking": "hm", "signature": "s"}, [b"hm"]),
        ({"type": "tool_use", "id": "t1", "name": "ls", "input": {"p": 1}}, [b"t1", b"ls", b'{"p": 1}']),
        ({"type": "tool_result", "tool_use_id": "t1", "content": "out"}, [b"out"]),
        ({"type": "tool_result"}, []),
        ({"type": "image", "source": {"type": "url", "url": "http://i"}}, [Media("image", "http://i")]),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}},
            [Media("image", "data:image/png;base64,QQ==")],
        ),
        ({"type": "image", "source": {"data": "QQ=="}}, [Media("image", "data:image/jpeg;base64,QQ==")]),
        ({"type": "image"}, []),
        ({"type": "document", "title": "t"}, []),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_each_kind_of_block_adds_its_own_parts(block: Any, parts: list[Any]) -> None:
    assert prompt_of(block) == parts


def test_a_tool_result_gives_its_texts_before_its_images() -> None:
    inner = [
        {"type": "text", "text": "a"},
        {"type": "image", "source": {"url": "http://i"}},
        {"type": "text", "text": "b"},
    ]
    assert prompt_of({"type": "tool_result", "content": inner}) == [b"a\nb", Media("image", "http://i")]


def test_token_counting_passes_unread() -> None:
    parsed = parse(b"\xff not json", "/v1/messages/count_tokens")
    assert parsed == Parsed("count_tokens", skip_response=True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "error unmarshaling request body: unexpected end of JSON input"),
        (b"[]", "error unmarshaling request body: Expected `object`, got `array`"),
        ({"model": "m"}, "invalid messages request: must have at least one message"),
        ({"messages": []}, "invalid messages request: must have at least one message"),
        (
            {"messages": [{"role": 1}]},
            "error parsing messages request: Expected `str | null`, got `int` - at `$.messages[0].role`",
        ),
        ({"messages": [{}], "tools": 1}, "error parsing messages request: Expected `array`"),
    ],
    ids=str,
)
def test_a_wrong_body_is_refused_with_the_reason(body: Any, text: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(body)
    assert (refused.value.status, refused.value.message) == (400, text)
