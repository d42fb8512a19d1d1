"""Bodies of the OpenAI APIs: what is read, what is refused and with which words."""

import json
import struct
from typing import Any

import pytest

from epp.bodies import Parsed
from epp.bodies.jsonbody import MOST_TOKENS
from epp.bodies.openai import OpenAIParser
from epp.types import Media, Prompt, Refused

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def parse(body: Any, path: str = COMPLETIONS) -> Parsed:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return OpenAIParser().parse(sent, path, {})


def refusal(body: Any, path: str) -> str:
    with pytest.raises(Refused) as refused:
        parse(body, path)
    assert refused.value.status == 400
    return refused.value.message


def chat(*messages: Any, **fields: Any) -> Parsed:
    return parse({"messages": list(messages), **fields}, CHAT)


def ids(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def joined(prompt: Prompt) -> bytes:
    return b"".join([part for part in prompt.parts if isinstance(part, bytes)])


@pytest.mark.parametrize(
    ("path", "body", "api"),
    [
        (CHAT, {"messages": [{}]}, "chat"),
        ("/v1/chat/completions/render", {"messages": [{}]}, "chat"),
        ("/v1/projects/7/chat/completions/", {"messages": [{}]}, "chat"),
        (COMPLETIONS, {"prompt": "x"}, "completions"),
        ("/v1/completions/render", {"prompt": "x"}, "completions"),
        ("/anything", {"prompt": "x"}, "completions"),
        ("/v1/embeddings", {"input": "x"}, "embeddings"),
        ("/v1/responses", {"input": "x"}, "responses"),
        ("/v1/conversations", {"items": [{}]}, "conversations"),
        ("/v1/images/generations", {"prompt": "x"}, "images"),
    ],
)
def test_the_path_tells_the_api(path: str, body: Any, api: str) -> None:
    assert parse(body, path).api == api


def test_the_fields_every_api_has_are_read() -> None:
    parsed = parse({"prompt": "x", "model": "m", "stream": True, "cache_salt": "s", "unknown": [1]})
    assert parsed == Parsed("completions", "m", stream=True, prompts=(Prompt([b"x"]),), cache_salt="s", rewritable=True)


@pytest.mark.parametrize(("sent", "read"), [("m", "m"), (7, ""), (None, ""), (["m"], "")], ids=str)
def test_a_model_counts_only_as_a_string(sent: Any, read: str) -> None:
    assert parse({"prompt": "x", "model": sent}).model == read


@pytest.mark.parametrize(("sent", "read"), [(True, True), (False, False), ("true", False), (1, False)], ids=str)
def test_a_stream_is_asked_for_with_true_alone(sent: Any, read: bool) -> None:
    assert parse({"prompt": "x", "stream": sent}).stream is read


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("héllo", (Prompt(["héllo".encode()]),)),
        (["a"], (Prompt([b"a"]),)),
        (["a", "", "c"], (Prompt([b"a"]), Prompt([b""]), Prompt([b"c"]))),
        ([0, 1, 4294967295], (Prompt(token_ids=ids(0, 1, 4294967295)),)),
    ],
    ids=str,
)
def test_a_completion_prompt_is_text_texts_or_token_ids(prompt: Any, prompts: tuple[Prompt, ...]) -> None:
    assert parse({"prompt": prompt}).prompts == prompts


@pytest.mark.parametrize(
    ("field", "prompt"),
    [
        ("héllo", Prompt(['"héllo"'.encode()])),
        (["a", "b"], Prompt([b'["a","b"]'])),
        ([7, 8], Prompt(token_ids=ids(7, 8))),
    ],
    ids=str,
)
def test_an_embedding_prompt_is_the_json_of_its_input_or_token_ids(field: Any, prompt: Prompt) -> None:
    assert parse({"input": field}, "/v1/embeddings").prompts == (prompt,)


def test_a_chat_prompt_is_tools_then_role_and_content_of_each_message() -> None:
    body = b'{"messages":[{"role":"system","content":"Be"},{"role":"user","content":"hi"}],"tools":[{"a": 1}]}'
    assert joined(parse(body, CHAT).prompts[0]) == b'[{"a": 1}]systemBeuserhi'


def test_a_chat_prompt_holds_media_in_their_place() -> None:
    blocks = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "http://i"}},
        {"type": "video_url", "video_url": {"url": "http://v"}},
        {"type": "audio_url", "audio_url": {"url": "http://a"}},
        {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        {"type": "refusal", "refusal": "no"},
        {"type": "text", "text": "hear"},
    ]
    media = [Media("image", "http://i"), Media("video", "http://v"), Media("audio", "http://a")]
    assert chat({"role": "user", "content": blocks}).prompts == (
        Prompt([b"user", b"see", *media, Media("audio", "QUJD"), b"hear"]),
    )


@pytest.mark.parametrize("message", [{}, {"content": None}, {"role": None, "content": ""}, {"content": []}], ids=str)
def test_a_message_may_be_empty(message: Any) -> None:
    assert chat(message).prompts == (Prompt([]),)


@pytest.mark.parametrize("name", ["tools", "documents", "chat_template_kwargs", "cache_salt", "add_generation_prompt"])
def test_null_counts_as_absent(name: str) -> None:
    assert chat({"content": "x"}, **{name: None}).prompts == (Prompt([b"x"]),)


@pytest.mark.parametrize("tools", [b"[]", b"[ ]"])
def test_no_tools_are_no_part_of_the_prompt(tools: bytes) -> None:
    assert parse(b'{"messages":[{"role":"user"}],"tools":' + tools + b"}", CHAT).prompts == (Prompt([b"user"]),)


def test_a_responses_prompt_is_a_json_list_of_what_was_sent() -> None:
    body = b'{"tools": [1.50], "input": [ "x" ], "instructions": "be", "model": "m"}'
    assert joined(parse(body, "/v1/responses").prompts[0]) == (
        b'[{"instructions":"be"},{"tools":[1.50]},{"input":[ "x" ]}]'
    )


def test_a_conversation_prompt_is_the_json_of_type_role_and_content() -> None:
    body = {"items": [{"type": "message", "id": "7", "role": "user", "content": [{"text": "x"}]}, {}]}
    assert joined(parse(body, "/v1/conversations").prompts[0]) == (
        b'[{"type":"message","role":"user","content":[{"text":"x"}]},{}]'
    )


def test_an_image_request_has_no_prompt_to_match() -> None:
    assert parse({"prompt": "a cat", "model": "m"}, "/v1/images/generations").prompts == ()


@pytest.mark.parametrize(
    ("path", "fields", "limit"),
    [
        (CHAT, {"max_completion_tokens": 5, "max_tokens": 9}, 5),
        (CHAT, {"max_completion_tokens": -5, "max_tokens": 9}, 9),
        (CHAT, {"max_output_tokens": 9}, None),
        (COMPLETIONS, {"max_tokens": 0}, 0),
        (COMPLETIONS, {"max_tokens": 16.0}, 16),
        (COMPLETIONS, {"max_tokens": 10**30}, MOST_TOKENS),
        (COMPLETIONS, {"max_tokens": 1e300}, MOST_TOKENS),
        (COMPLETIONS, {"max_tokens": 16.5}, None),
        (COMPLETIONS, {"max_tokens": "16"}, None),
        (COMPLETIONS, {"max_tokens": True}, None),
        (COMPLETIONS, {"max_completion_tokens": 5}, None),
        ("/v1/responses", {"max_output_tokens": 7, "max_tokens": 9}, 7),
        ("/v1/embeddings", {"max_tokens": 9}, None),
    ],
    ids=str,
)
def test_the_output_limit_is_a_whole_number_of_the_apis_own_field(path: str, fields: Any, limit: int | None) -> None:
    body = {"messages": [{}], "prompt": "x", "input": "x", **fields}
    assert parse(body, path).max_output_tokens == limit


CHAT_REFUSED = "invalid chat completions request: must have valid messages field"
COMPLETIONS_REFUSED = "invalid completions request: must have prompt field"
EMBEDDINGS_REFUSED = "invalid embeddings request: must have input field"
RESPONSES_REFUSED = "invalid responses request: must have input field"
CONVERSATIONS_REFUSED = "invalid conversations request: must have items field"
IMAGES_REFUSED = "invalid images generations request: must have prompt field"
NOT_UTF8 = "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
HALF_PAIR = "JSON is malformed: invalid utf-16 surrogate pair"
USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (CHAT, {}, CHAT_REFUSED),
        (CHAT, {"messages": []}, CHAT_REFUSED),
        (CHAT, {"messages": "x"}, CHAT_REFUSED),
        (CHAT, {"messages": [{"role": 1}]}, CHAT_REFUSED),
        (CHAT, {"messages": [{"content": 1}]}, CHAT_REFUSED),
        (CHAT, {"messages": [{"content": ["x"]}]}, CHAT_REFUSED),
        (CHAT, {"messages": [{"content": [{"type": "image_url", "image_url": "http://i"}]}]}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "tools": {}}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "documents": "x"}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "chat_template": 1}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "chat_template_kwargs": []}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "cache_salt": 1}, CHAT_REFUSED),
        (CHAT, {"messages": [USER], "add_generation_prompt": "x"}, CHAT_REFUSED),
        (COMPLETIONS, {}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": None}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": ""}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": []}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": 1}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": ["a", 1]}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": [1, "a"]}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": [[1]]}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": [1.5]}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": [-1]}, COMPLETIONS_REFUSED),
        (COMPLETIONS, {"prompt": [4294967296]}, COMPLETIONS_REFUSED),
        ("/v1/embeddings", {"input": []}, EMBEDDINGS_REFUSED),
        ("/v1/embeddings", {"input": ["a", 1]}, EMBEDDINGS_REFUSED),
        ("/v1/embeddings", {"prompt": "x"}, EMBEDDINGS_REFUSED),
        ("/v1/responses", {"input": None}, RESPONSES_REFUSED),
        ("/v1/responses", {"instructions": "x"}, RESPONSES_REFUSED),
        ("/v1/responses", {"input": "x", "cache_salt": 1}, RESPONSES_REFUSED),
        ("/v1/conversations", {"items": []}, CONVERSATIONS_REFUSED),
        ("/v1/conversations", {"items": [{"role": 1}]}, CONVERSATIONS_REFUSED),
        ("/v1/conversations", {"items": [{}], "metadata": 1}, CONVERSATIONS_REFUSED),
        ("/v1/images/generations", {}, IMAGES_REFUSED),
        ("/v1/images/generations", {"prompt": ""}, IMAGES_REFUSED),
    ],
    ids=str,
)
def test_a_body_without_its_field_is_refused_by_name(path: str, body: Any, text: str) -> None:
    assert refusal(body, path) == text


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, "/v1/responses"])
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"prompt": "x', "unexpected end of JSON input"),
        (b'{"prompt": "\xff", "messages": [{"content": "\xff"}], "input": "x", "cache_salt": "\xff"}', NOT_UTF8),
        (b'{"prompt": "\\udc00", "messages": [{"role": "\\udc00"}], "cache_salt": "\\udc00", "input": 1}', HALF_PAIR),
        (b"[1]", "Expected `object`, got `array`"),
        (b"null", "Expected `object`, got `null`"),
        (b'{"prompt": 1} x', "JSON is malformed: trailing characters (byte 15)"),
        (b'{"x": ' + b"[" * 100_000, "nested too deeply"),
    ],
    ids=["empty", "cut", "utf-8", "surrogate", "array", "null", "trailing", "deep"],
)
def test_what_is_no_json_object_is_refused_with_the_reason(path: str, body: bytes, detail: str) -> None:
    assert refusal(body, path).startswith(f"error unmarshaling request bodyMap: {detail}")


@pytest.mark.parametrize(
    "body", [{"Prompt": "x", "model": "m"}, {"prompt": None, "PROMPT": "x", "model": "m"}], ids=str
)
def test_field_names_match_in_any_letter_case(body: Any) -> None:
    parsed = parse(body)
    assert (parsed.model, parsed.prompts) == ("m", (Prompt([b"x"]),))


def test_the_last_of_repeated_fields_wins() -> None:
    assert parse(b'{"prompt": "a", "prompt": "b"}').prompts == (Prompt([b"b"]),)
