"""The llm-d router's own test cases for its data producers; blocks have no least size unless a case says so."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from xxhash import xxh64_intdigest

from epp import Media, Prompt
from epp.settings import PluginError
from epp.testing import endpoints, request
from scorers.approx_prefix import ApproxPrefixCacheProducer
from scorers.placeholders import parse_resolution
from scorers.tokens import TokenProducer
from tests.scorer_kit import build, decided, measured, packed, table

PNG_64X32 = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAAAgCAAAAACH9iFYAAAAGElEQVR4nGNgGAWjYBSMglEwCkbBKEAFAAggAAGm0bC9"
    "AAAAAElFTkSuQmCC"
)


class Unfloored(ApproxPrefixCacheProducer):
    """Blocks may be as short as a token."""

    floor_tokens = 1


def by_token(**settings: object) -> Any:
    return build(Unfloored, **{"autoTune": False, "blockSizeTokens": 1, **settings})


def send(producer: Any, made: Any, *prompts: list[int], **picks: str) -> tuple[list[float], float]:
    """(cached blocks of each endpoint, blocks of the prompts), then the pick."""
    asked = request()
    found = measured(producer, asked, made, packed(*prompts))
    if picks:
        producer.picked(asked, decided(asked, made, picks, signals=found))
    return list(found["cached_blocks"]), found["prompt_blocks"]


def test_an_empty_index_matches_nothing() -> None:
    assert send(by_token(), table("pod1", "pod2"), [1, 2]) == ([0, 0], 2)


def test_a_prompt_is_held_by_the_primary_and_the_prefill_endpoint() -> None:
    producer, made = by_token(), table("pod1", "pod2", "pod3")
    send(producer, made, [1, 2], default="pod1", prefill="pod3")
    assert send(producer, made, [1, 3]) == ([1, 0, 1], 2)


def test_the_least_recently_used_block_is_evicted() -> None:
    producer, made = by_token(lruCapacityPerServer=2), table("pod1")
    for token in (1, 2, 3):
        send(producer, made, [token], default="pod1")
    assert [send(producer, made, [token])[0] for token in (1, 2, 3)] == [[0], [1], [1]]


@pytest.mark.parametrize(
    ("settings", "blocks"),
    [
        ({"maxPrefixTokensToMatch": 2}, 2),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 3}, 3),
        ({"maxPrefixTokensToMatch": 0, "maxPrefixBlocksToMatch": 0}, 4),
    ],
    ids=["tokens", "blocks", "unlimited"],
)
def test_only_so_much_of_a_prompt_is_matched(settings: dict[str, int], blocks: int) -> None:
    assert send(by_token(**settings), table("pod1"), [1, 2, 3, 4]) == ([0], blocks)


def test_the_engines_block_size_counts_and_a_partial_block_too() -> None:
    producer = build(ApproxPrefixCacheProducer, autoTune=True, blockSizeTokens=256)
    assert send(producer, endpoints(block_tokens=[128]), list(range(192))) == ([0], 2)


@pytest.mark.parametrize(
    ("settings", "engine", "size"),
    [({}, [16], 64), ({}, [128], 128), ({"autoTune": False, "blockSizeTokens": 32}, [128], 64), ({}, [], 64)],
    ids=["floor", "engine", "manual", "no-endpoints"],
)
def test_block_size(settings: dict[str, Any], engine: list[float], size: int) -> None:
    assert build(ApproxPrefixCacheProducer, **settings).block_tokens(endpoints(block_tokens=engine)) == size


def test_the_deprecated_block_size_is_taken_verbatim() -> None:
    producer = build(Unfloored, autoTune=False, blockSize=24)
    assert producer.block_tokens(endpoints()) == 24
    assert "blockSizeTokens" in producer.warnings[0]


@pytest.mark.parametrize(
    "settings",
    [{"blockSizeTokenz": 1}, {"autoTune": False, "blockSizeTokens": 0}, {"maxPrefixTokensToMatch": -1}],
    ids=["unknown", "no-size", "negative"],
)
def test_bad_parameters_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((PluginError, ValueError)):
        build(ApproxPrefixCacheProducer, **settings)


def test_prompts_of_one_request_are_matched_each_by_itself() -> None:
    producer, made = by_token(), table("pod1")
    send(producer, made, [1, 2, 3], [4, 5], default="pod1")
    assert send(producer, made, [1, 2, 3], [4, 5]) == ([5], 5)
    other = by_token()
    send(other, made, [1, 2], [3, 4], default="pod1")
    assert send(other, made, [1, 2], [5, 6]) == ([2], 4)


def tokens_of(*parts: bytes | Media, **settings: Any) -> tuple[int, ...]:
    made = build(TokenProducer, **settings).measure(request(prompts=(Prompt(list(parts)),)))
    assert made.count * 4 == len(made.prompts[0])
    return struct.unpack(f"<{made.count}I", made.prompts[0])


def test_text_is_packed_four_bytes_a_token() -> None:
    text = b"0123456789abcdef0123456789abcdef"
    assert tokens_of(text) == struct.unpack("<8I", text)


def test_token_ids_pass_through() -> None:
    ids = struct.pack("<3I", 7, 8, 9)
    found = TokenProducer().measure(request(prompts=(Prompt(token_ids=ids),)))
    assert (found.prompts, found.count) == ((ids,), 3)


@pytest.mark.parametrize(
    ("url", "count"), [(PNG_64X32, 2), ("https://images.example/cat.png", 225)], ids=["png", "not-decodable"]
)
def test_an_image_counts_by_its_pixels(url: str, count: int) -> None:
    assert tokens_of(Media("image", url)) == (xxh64_intdigest(url.encode()) & 0xFFFFFFFF,) * count


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x360", (640, 360)),
        (" 640 X 360 ", (640, 360)),
        ("640", None),
        ("0x360", None),
        ("-1x360", None),
        ("", None),
    ],
)
def test_a_video_resolution_is_read_leniently(text: str, size: tuple[int, int] | None) -> None:
    assert parse_resolution(text) == size
