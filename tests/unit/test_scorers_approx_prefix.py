from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epp import Endpoints, Request
from epp.testing import endpoints, request
from scorers.approx_prefix import MOST_PROMPTS, ApproxPrefixCacheProducer
from scorers.tokens import TokenProducer
from tests.scorer_kit import build, decided, measured, packed, table

LONG = "You are a helpful assistant. " * 100


def cached(producer: Any, asked: Request, made: Endpoints) -> dict[str, float]:
    found = measured(producer, asked, made, TokenProducer().measure(asked))
    return dict(zip(made.names, found["cached_blocks"].tolist(), strict=True))


def send(producer: Any, asked: Request, made: Endpoints, to: str) -> None:
    found = measured(producer, asked, made, TokenProducer().measure(asked))
    producer.picked(asked, decided(asked, made, {"default": to}, signals=found))


def test_a_prompt_is_found_where_it_was_sent() -> None:
    producer, made = ApproxPrefixCacheProducer(), table("a", "b")
    send(producer, request(LONG), made, "b")
    assert cached(producer, request(LONG), made) == {"default/a": 0, "default/b": 12}


@pytest.mark.parametrize("other", [{"model": "adapter-1"}, {"cache_salt": "tenant-1"}], ids=str)
def test_other_models_and_salts_share_nothing(other: dict[str, str]) -> None:
    producer, made = ApproxPrefixCacheProducer(), table("a")
    send(producer, request(LONG), made, "a")
    assert cached(producer, request(LONG, **other), made) == {"default/a": 0}


def test_a_model_and_a_salt_are_kept_apart() -> None:
    producer, made = ApproxPrefixCacheProducer(), table("a")
    send(producer, request(LONG, model="ab", cache_salt="c"), made, "a")
    assert cached(producer, request(LONG, model="a", cache_salt="bc"), made) == {"default/a": 0}


def test_memory_follows_endpoints_to_other_rows() -> None:
    producer = ApproxPrefixCacheProducer()
    send(producer, request(LONG), table("a", "b", "c"), "b")
    assert cached(producer, request(LONG), table("c", "x", "b", "a")) == {
        "default/c": 0,
        "default/x": 0,
        "default/b": 12,
        "default/a": 0,
    }


def test_an_endpoint_that_left_comes_back_empty() -> None:
    producer = ApproxPrefixCacheProducer()
    send(producer, request(LONG), table("a", "b"), "a")
    cached(producer, request(LONG), table("b"))
    assert producer.statistics().entries == 0
    assert cached(producer, request(LONG), table("a", "b")) == {"default/a": 0, "default/b": 0}


def test_an_endpoint_that_left_before_the_pick_is_not_remembered_for_long() -> None:
    producer, before = ApproxPrefixCacheProducer(), table("a", "b")
    asked = request(LONG)
    found = measured(producer, asked, before, TokenProducer().measure(asked))
    cached(producer, request(LONG), table("b"))
    producer.picked(asked, decided(asked, before, {"default": "a"}, signals=found))
    cached(producer, request(LONG), table("b", "c"))
    assert producer.statistics().entries == 0


def test_one_producer_does_not_remember_what_another_hashed() -> None:
    mine, other, made = ApproxPrefixCacheProducer(), ApproxPrefixCacheProducer(), table("a")
    asked = request(LONG)
    found = measured(other, asked, made, TokenProducer().measure(asked))
    mine.picked(asked, decided(asked, made, {"default": "a"}, signals=found))
    assert mine.statistics().entries == 0


@pytest.mark.parametrize(
    ("settings", "blocks", "size", "capacity"),
    [
        ({}, 1000.0, 16.0, 250),
        ({}, 1000.0, 128.0, 1000),
        ({}, 0.0, 0.0, 31_250),
        ({"lruCapacityPerServer": 500}, 0.0, 16.0, 500),
        ({"lruCapacityPerServer": 500, "autoTune": False}, 1000.0, 64.0, 500),
        ({"lruCapacityPerServer": 0}, 0.0, 16.0, 31_250),
        ({}, 1.0, 16.0, 1),
    ],
    ids=["small-blocks", "big-blocks", "unknown", "configured", "no-tuning", "zero", "tiny"],
)
def test_capacity_is_that_of_the_engines_cache(
    settings: dict[str, Any], blocks: float, size: float, capacity: int
) -> None:
    producer = build(ApproxPrefixCacheProducer, **settings)
    made = endpoints(num_blocks=[blocks], block_tokens=[size])
    assert producer.capacity(made, 0, producer.block_tokens(made)) == capacity


def test_an_engines_cache_bounds_what_is_remembered_of_it() -> None:
    producer = ApproxPrefixCacheProducer()
    made = table("a", num_blocks=[16], block_tokens=[16])
    for number in range(20):
        send(producer, request(f"{number} {LONG}"), made, "a")
    assert producer.statistics().entries <= 4


@pytest.mark.parametrize(
    ("told", "size"), [([0, 128, 96], 128), ([128, 256], 128)], ids=["first-unknown", "first-known"]
)
def test_engines_that_differ_in_block_size_share_one(told: list[float], size: int) -> None:
    assert ApproxPrefixCacheProducer().block_tokens(endpoints(block_tokens=told)) == size


def test_a_request_without_a_prompt_has_no_blocks() -> None:
    found = measured(ApproxPrefixCacheProducer(), request(prompts=()), table("a", "b"), packed())
    assert (list(found["cached_blocks"]), found["prompt_blocks"]) == ([0, 0], 0)


def test_of_a_great_batch_only_the_first_prompts_are_looked_up() -> None:
    found = measured(ApproxPrefixCacheProducer(), request(), table("a"), packed(*[[1]] * (MOST_PROMPTS + 5)))
    assert found["prompt_blocks"] == MOST_PROMPTS


@settings(max_examples=60)
@given(
    sent=st.lists(st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.sampled_from("abc")), max_size=8),
    asked=st.lists(st.integers(0, 2), min_size=1, max_size=6),
)
def test_a_match_is_the_longest_common_beginning_with_a_prompt_sent_there(
    sent: list[tuple[list[int], str]], asked: list[int]
) -> None:
    producer, made = build(ApproxPrefixCacheProducer, autoTune=False), table("a", "b", "c")

    def tokens(blocks: list[int]) -> Any:
        return packed([token for block in blocks for token in [block] * 64])

    for blocks, to in sent:
        one = request()
        found = measured(producer, one, made, tokens(blocks))
        producer.picked(one, decided(one, made, {"default": to}, signals=found))
    expected = [max([_common(blocks, asked) for blocks, to in sent if to == name], default=0) for name in "abc"]
    assert np.array_equal(measured(producer, request(), made, tokens(asked))["cached_blocks"], expected)


def _common(one: list[int], other: list[int]) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length
