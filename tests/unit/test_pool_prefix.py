from __future__ import annotations

from array import array
from itertools import combinations

import pytest

from epp.pool.prefix import DEFAULT_CAPACITY, SET_BYTES, PrefixIndex

A, B, C = "default/a", "default/b", "default/c"


def blocks(*hashes: int) -> array[int]:
    return array("Q", hashes)


def prompt(start: int, length: int) -> array[int]:
    return array("Q", range(start, start + length))


def matched(index: PrefixIndex, hashes: array[int], *keys: str) -> list[float]:
    return index.match(hashes, index.slots(keys)).tolist()


def indexed(**prompts: array[int]) -> PrefixIndex:
    index = PrefixIndex()
    for name, hashes in prompts.items():
        index.add(hashes, f"default/{name}")
    return index


@pytest.mark.parametrize("length", [1, 8, 63, 64, 200], ids="{} blocks".format)
def test_each_endpoint_matches_what_it_holds_of_the_prompt(length):
    whole = prompt(1, length)
    index = indexed(a=whole, b=whole[: length // 2])
    assert matched(index, whole, A, B, C) == [length, length // 2, 0]


@pytest.mark.parametrize("gap", [0, 3, 100])
def test_a_match_ends_at_the_first_block_the_endpoint_lacks(gap):
    whole = prompt(1, 200)
    index = indexed(a=whole, b=whole)
    index.set_capacity(B, gap)
    assert matched(index, whole, A, B) == [200, gap]
    assert matched(index, whole[: gap + 5], A, B) == [gap + 5, gap]


def test_a_block_that_nobody_holds_ends_every_match():
    index = indexed(a=blocks(1, 2), b=blocks(1, 2))
    assert matched(index, blocks(1, 2, 3, 4), A, B) == [2, 2]


def test_matches_come_in_the_order_of_the_slots_asked_for():
    index = indexed(a=blocks(1), b=blocks(1, 2), c=blocks(1, 2, 3))
    assert matched(index, blocks(1, 2, 3), C, A, B, A) == [3, 1, 2, 1]


@pytest.mark.parametrize("hashes", [blocks(), prompt(0, 0)])
def test_no_blocks_match_nothing(hashes):
    index = indexed(a=hashes)
    assert matched(index, hashes, A, B) == [0, 0]
    assert index.match(hashes, index.slots([])).shape == (0,)
    assert index.totals.entries == 0


def test_zero_and_the_highest_hash_are_hashes_like_others():
    extremes = blocks(0, 2**64 - 1, 5)
    index = indexed(a=extremes)
    assert matched(index, extremes, A, B) == [3, 0]


def test_the_beginning_of_a_prompt_outlives_its_end():
    index = PrefixIndex()
    index.set_capacity(A, 5)
    index.add(blocks(1, 2, 3, 4), A)
    index.add(blocks(11, 12), A)
    assert list(index.entries(A)) == [3, 2, 1, 12, 11]


def test_of_a_prompt_longer_than_the_capacity_the_beginning_is_held():
    index = PrefixIndex()
    index.set_capacity(A, 3)
    index.add(prompt(1, 100), A)
    assert matched(index, prompt(1, 100), A) == [3]


def test_using_blocks_again_saves_them_from_eviction():
    index = PrefixIndex()
    index.set_capacity(A, 4)
    for hashes in (blocks(1, 2), blocks(3, 4), blocks(1, 2), blocks(5)):
        index.add(hashes, A)
    assert list(index.entries(A)) == [3, 2, 1, 5]
    assert index.totals.evictions == 1


def test_an_endpoint_over_capacity_is_cut_back_by_a_sixty_fourth():
    index = PrefixIndex()
    index.set_capacity(A, 640)
    index.add(prompt(1, 640), A)
    assert index.totals.entries == 640
    index.add(blocks(1001), A)
    assert list(index.entries(A)) == [*range(629, 0, -1), 1001]


def test_a_smaller_capacity_takes_effect_at_once():
    index = indexed(a=prompt(1, 100))
    index.set_capacity(A, 10)
    assert list(index.entries(A)) == list(range(10, 0, -1))
    index.set_capacity(A, 0)
    assert index.totals.entries == 0


def test_an_unknown_endpoint_gets_the_default_capacity():
    index = indexed(a=prompt(1, DEFAULT_CAPACITY + 1000))
    assert matched(index, prompt(1, DEFAULT_CAPACITY + 1000), A) == [DEFAULT_CAPACITY]


def test_a_negative_capacity_is_refused_by_name():
    with pytest.raises(ValueError, match="capacity of default/a is -1 blocks; give 0 or more"):
        PrefixIndex().set_capacity(A, -1)


def test_a_removed_endpoint_never_matches_and_its_slot_is_given_to_the_next():
    index = indexed(a=prompt(1, 100), b=prompt(1, 50))
    (slot,) = index.slots([A])
    index.remove(A)
    assert index.keys() == (B,)
    assert index.slots([C]) == [slot]
    assert matched(index, prompt(1, 100), A, B, C) == [0, 50, 0]


def test_removing_an_unknown_endpoint_changes_nothing():
    index = indexed(a=blocks(1))
    index.remove(C)
    assert index.keys() == (A,)


def test_a_cleared_endpoint_keeps_its_slot_and_capacity():
    index = indexed(a=prompt(1, 10))
    index.set_capacity(A, 3)
    before = index.slots([A]).tolist()
    index.clear(A)
    assert matched(index, prompt(1, 10), A) == [0]
    index.add(prompt(1, 10), A)
    assert index.slots([A]).tolist() == before
    assert matched(index, prompt(1, 10), A) == [3]


def test_a_cleared_endpoint_gives_its_log_back():
    index = indexed(a=prompt(1, 20_000))
    index.clear(A)
    assert index._endpoints[0].bytes < 1024


def test_memory_of_a_removed_endpoint_is_used_again():
    index = PrefixIndex()
    sizes = []
    for start in range(0, 500_000, 50_000):
        index.set_capacity(A, 50_000)
        index.add(prompt(start, 50_000), A)
        sizes.append(index.totals.bytes)
        index.remove(A)
    assert max(sizes[1:]) <= sizes[1]


def test_more_blocks_than_fit_one_step_keep_their_order():
    index = PrefixIndex()
    index.set_capacity(A, 100_000)
    index.add(prompt(1, 100_000), A)
    assert list(index.entries(A)) == list(range(100_000, 0, -1))
    index.add(prompt(1, 80_000), A)
    assert list(index.entries(A)) == list(range(100_000, 0, -1))


def test_blocks_that_many_endpoints_hold_share_one_set():
    index = PrefixIndex()
    keys = [f"default/{n}" for n in range(300)]
    for key in keys:
        index.add(prompt(1, 32), key)
    assert matched(index, prompt(1, 40), *keys) == [32] * 300
    totals = index.totals
    assert (totals.entries, totals.blocks, totals.sets) == (9600, 32, 1)


def test_sets_that_cost_too_much_for_what_they_say_are_not_made():
    index = PrefixIndex()
    trios = [[f"default/{n}" for n in trio] for trio in combinations(range(40), 3)]
    for number, trio in enumerate(trios):
        for key in trio:
            index.add(blocks(number), key)
    totals = index.totals
    assert totals.bytes <= 31 * totals.entries + SET_BYTES
    assert totals.sets < len(trios) // 2
    assert totals.entries == sum(len(index.entries(key)) for key in {*index.keys()})
    assert matched(index, blocks(0), *trios[0]) == [1, 1, 1]
    assert matched(index, blocks(len(trios) - 1), *trios[-1]) == [0, 0, 1]


def test_long_churn_leaves_no_garbage():
    index = PrefixIndex()
    index.set_capacity(A, 1000)
    index.set_capacity(B, 1000)
    for start in range(0, 90_000, 30):
        index.add(prompt(start, 30), A if start % 60 else B)
        index.add(prompt(start % 3990, 30), A)
    totals = index.totals
    assert totals.entries <= 2000
    assert totals.blocks <= 2000
    assert totals.bytes < 80 * 2000
    assert index.totals.evictions > 85_000


def test_what_nothing_refers_to_is_forgotten():
    index = indexed(a=prompt(1, 100), b=prompt(1, 50))
    index.clear(A)
    index.clear(B)
    totals = index.totals
    assert (totals.entries, totals.blocks, totals.sets) == (0, 0, 0)
