from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from typing import Any

import pytest
from xxhash import xxh64_intdigest

from epp import Media, Prompt, Request
from epp.settings import PluginError
from epp.testing import request
from scorers.images import dimensions
from scorers.packing import MOST_PLACEHOLDERS
from scorers.placeholders import Estimate, placeholders
from scorers.tokens import Tokenizer, TokenProducer
from tests.scorer_kit import build

# Each 64 × 32 pixels, written by Pillow.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAAAAACH9iFYAAAAGElEQVR4nGNgGAWjYBSMglEwCkbBKEAFAAggAAGm0bC9AAAAAElFTkSuQmCC"
GIF = (
    "R0lGODdhQAAgAIEAAAAAAAAAAAAAAAAAACwAAAAAQAAgAEAISwABCBxIsKDBgwgTKlzIsKHDhxAjSpxIsaLFixgzatzIsaPHjyBDihxJsqTJkyhTqlzJ"
    "sqXLlzBjypxJs6bNmzhz6tzJs6fPnyADAgA7"
)
JPEG_WITH_EXIF = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/4QAWRXhpZgAATU0AKgAAAAgAAAAAAAD/2wBDAKBueIx4ZKCMgoy0qqC+8P//8Nzc8P//////////////////////"
    "////////////////////////////////////wgALCAAgAEABAREA/8QAFQABAQAAAAAAAAAAAAAAAAAAAAL/2gAIAQEAAAABgAAAAB//xAAUEAEAAAAA"
)


def prompt_of(*parts: bytes | Media) -> Request:
    return request(prompts=(Prompt(list(parts)),))


def bytes_of(*parts: bytes | Media, **settings: Any) -> bytes:
    return build(TokenProducer, **settings).measure(prompt_of(*parts)).prompts[0]


@pytest.mark.parametrize(
    ("text", "packed"),
    [(b"", b""), (b"a", b"a\0\0\0"), (b"abcd", b"abcd"), (b"abcde", b"abcde\0\0\0")],
    ids=["empty", "one", "four", "five"],
)
def test_text_is_padded_to_whole_tokens(text: bytes, packed: bytes) -> None:
    assert bytes_of(text) == packed


def test_parts_follow_each_other_without_padding_between() -> None:
    assert bytes_of(b"user", b"hi", b"!") == b"userhi!\0"


def test_media_begin_at_a_whole_token() -> None:
    token = struct.pack("<I", xxh64_intdigest(b"u") & 0xFFFFFFFF)
    estimate = {"image": {"mode": "static", "static": {"staticToken": 2}}}
    assert bytes_of(b"abcde", Media("image", "u"), b"f", estimate=estimate) == b"abcde\0\0\0" + token * 2 + b"f\0\0\0"


def test_each_prompt_of_a_batch_is_packed_by_itself() -> None:
    found = TokenProducer().measure(request(prompts=(Prompt([b"a"]), Prompt([b"bcdef"]))))
    assert (found.prompts, found.count) == ((b"a\0\0\0", b"bcdef\0\0\0"), 3)


def test_what_no_parser_understood_has_no_tokens() -> None:
    assert TokenProducer().measure(request(prompts=())).count == 0


@pytest.mark.parametrize("image", [PNG, GIF, JPEG_WITH_EXIF], ids=["png", "gif", "jpeg"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"], ids=["bare", "url"])
def test_the_size_of_an_image_is_read_from_its_header(image: str, prefix: str) -> None:
    assert dimensions(prefix + image) == (64, 32)


FRAME = bytes.fromhex("ffc0000b08002000400101110000")
TABLE = bytes.fromhex("ffc4000500ffff")


@pytest.mark.parametrize(
    ("before", "size"),
    [(b"", (64, 32)), (TABLE, (64, 32)), (b"\xff" * 9, (64, 32)), (b"\xff" * 200, None), (TABLE * 100, None)],
    ids=["plain", "huffman-table", "fill", "much-fill", "many-segments"],
)
def test_a_jpegs_size_is_in_its_frame_header(before: bytes, size: tuple[int, int] | None) -> None:
    assert dimensions(b64encode(b"\xff\xd8" + before + FRAME).decode()) == size


@pytest.mark.parametrize(
    "content",
    [
        "",
        "https://images.example/cat.png",
        "data:text/plain;base64," + PNG,
        "data:image/png,raw",
        "/9j/" + "/" * 4000,
        "é",
    ],
    ids=["empty", "url", "not-an-image", "not-base64", "endless-jpeg", "not-ascii"],
)
def test_what_is_no_image_has_no_size(content: str) -> None:
    assert dimensions(content) is None


def test_an_image_cannot_claim_more_than_the_limit() -> None:
    head = b64decode(PNG)
    huge = b64encode(head[:16] + b"\x7f\xff\xff\xff" * 2 + head[24:]).decode()
    assert dimensions(huge) == (2**31 - 1, 2**31 - 1)
    assert len(bytes_of(Media("image", huge), Media("image", huge))) // 4 <= MOST_PLACEHOLDERS + 1


@pytest.mark.parametrize(
    ("kind", "content", "estimate", "headers", "count"),
    [
        ("image", PNG, {}, {}, 2),
        ("image", "u", {}, {}, 225),
        ("image", "u", {"image": {"defaultResolution": {"width": 1024, "height": 10}}}, {}, 10),
        ("image", "u", {"image": {"dynamic": {"factor": 230_400}}}, {}, 1),
        ("image", "u", {"image": {"mode": "static"}}, {}, 1),
        ("audio", "123456789", {}, {}, 3),
        ("audio", "", {}, {}, 1),
        ("video", "u", {}, {}, 20 * 225),
        ("video", "u", {}, {"x-llm-d-video-duration-seconds": "3"}, 6 * 225),
        ("video", "u", {}, {"x-llm-d-video-duration-seconds": "nan"}, 20 * 225),
        ("video", "u", {}, {"x-llm-d-video-duration-seconds": "1.7e308"}, 131_072),
        ("video", "u", {"video": {"frames": {"mode": "strided"}}}, {"x-llm-d-video-fps": "1.7e308"}, 131_072),
        ("video", "u", {}, {"x-llm-d-video-resolution": "1024x10"}, 20 * 10),
        ("video", "u", {"video": {"frames": {"sampled": {"sampleFPS": 1, "temporalPatchSize": 2}}}}, {}, 5 * 225),
        ("video", "u", {"video": {"frames": {"maxFrames": 4}}}, {}, 4 * 225),
        ("video", "u", {"video": {"frames": {"minFrames": 30}}}, {}, 30 * 225),
        ("video", "u", {"video": {"frames": {"mode": "strided", "strided": {"frameStride": 24}}}}, {}, 10 * 225),
        ("video", "u", {"video": {"frames": {"mode": "strided"}}}, {"x-llm-d-video-fps": "1"}, 10 * 225),
        ("video", "u", {"video": {"tokensPerFrame": {"mode": "static", "static": {"numTokensPerFrame": 3}}}}, {}, 60),
        ("video", "u", {"video": {"maxVideoTokens": 100}}, {}, 100),
        ("video", "u", {"video": {"defaultDuration": 1}}, {}, 2 * 225),
    ],
)
def test_media_count_as_configured(
    kind: str, content: str, estimate: dict[str, Any], headers: dict[str, str], count: int
) -> None:
    built = build(TokenProducer, estimate=estimate)
    found = built.measure(request(prompts=(Prompt([Media(kind, content)]),), headers=headers))
    assert found.count == count


def test_defaults_hold_without_any_setting() -> None:
    assert placeholders(Media("image", "u"), request(), Estimate()) == 225


@pytest.mark.parametrize(
    "settings", [{"modelName": "m"}, {"modelName": "m", "vllm": {"url": "http://x"}}], ids=["model", "vllm"]
)
def test_a_tokenizing_service_is_replaced_by_the_estimate_with_a_warning(settings: dict[str, Any]) -> None:
    producer = build(TokenProducer, **settings)
    assert len(producer.warnings) == 1
    assert producer.measure(request("abcd")).count == 1


def test_the_plain_producer_has_nothing_to_warn_of() -> None:
    assert TokenProducer().warnings == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vllm": {}}, "vllm needs modelName"),
        ({"modelName": "m", "vllm": {}, "estimate": {}}, "estimate and vllm"),
        ({"modelName": "m", "vllm": {"uri": "x"}}, "uri"),
        ({"estimate": {"image": {"mode": "clever"}}}, "clever"),
    ],
    ids=["no-model", "two-backends", "unknown-key", "unknown-mode"],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises((PluginError, ValueError), match=said):
        build(TokenProducer, **settings)


def test_the_old_name_says_what_to_use() -> None:
    assert "token-producer" in Tokenizer.deprecated
