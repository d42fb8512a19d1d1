"""The parts of the prefix index: growing cells, the block table, sets of endpoints, recency."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.pool.prefix_blocks import SWEEP, BlockTable
from epp.pool.prefix_cells import Cells, Ids, Spare
from epp.pool.prefix_recency import MOST_TOUCHES, Recency
from epp.pool.prefix_sets import EndpointSets, members, slots_of


def placed(table: BlockTable, numbers: list[int]) -> Ids:
    """Known to the table, each a prompt of its own, held by set 1."""
    table.reserve(len(numbers))
    one_each = [array("Q", [number]) for number in numbers]
    ids = [table.stretch(prompt, 0)[0] or table.begin(prompt, 0)[0] for prompt in one_each]
    table.set_of.all[ids] = 1
    return np.array(ids, np.uint32)


def dropped(table: BlockTable, ids: Ids) -> None:
    table.set_of.all[ids] = 0
    table.delete(ids)


def test_cells_grow_with_zeros_and_keep_what_they_held():
    cells = Cells("I", 2)
    cells.at[1] = 7
    cells.grow(3)
    assert cells.all.tolist() == [0, 7, 0, 0, 0]
    assert len(cells) == 5


def test_cells_grow_while_somebody_still_looks_at_the_old_ones():
    cells = Cells("Q", 2)
    old = cells.all
    cells.grow(1)
    cells.at[0] = 5
    assert (cells.all.tolist(), old.tolist()) == ([5, 0, 0], [0, 0])


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 5000, 40_000])
def test_the_table_finds_every_block_however_often_its_buckets_were_split(count):
    table = BlockTable()
    numbers = [number * 0x9E37_79B9_7F4A_7C15 % 2**64 for number in range(count)]
    for start in range(0, count, 700):
        placed(table, numbers[start : start + 700])
    assert len(table) == count
    assert table.hash_of.all[[table.find(number) for number in numbers]].tolist() == numbers
    assert table.find(12345) == 0


def longest_chain(table: BlockTable) -> int:
    heads, next_of = table._heads.all, table._next_of.all
    length = 0
    while heads.any():
        heads, length = next_of[heads], length + 1
    return length


def test_chains_stay_short_however_many_blocks_come_and_go():
    table = BlockTable()
    rng = np.random.default_rng(0)
    for _ in range(300):
        placed(table, rng.integers(0, 2**64, 500, dtype=np.uint64).tolist())
        if len(table) > 20_000:
            alive = np.flatnonzero(table.set_of.all)
            dropped(table, rng.choice(alive, 700, replace=False).astype(np.uint32))
    assert len(table.hash_of) < 25_000
    assert longest_chain(table) <= 12
    alive = np.flatnonzero(table.set_of.all)
    assert [table.find(number) for number in table.hash_of.all[alive].tolist()] == alive.tolist()


def test_hashes_that_share_one_bucket_are_kept_apart():
    table = BlockTable()
    numbers = [number << 40 for number in range(2 * SWEEP)]
    dropped(table, placed(table, numbers)[::2])
    assert [table.find(number) != 0 for number in numbers] == [False, True] * SWEEP


def test_swept_ids_are_given_out_again_in_ascending_order():
    table = BlockTable()
    ids = placed(table, list(range(3 * SWEEP)))
    dropped(table, ids[9 : 9 + SWEEP][::-1])
    assert placed(table, list(range(9000, 9020))).tolist() == ids[9:29].tolist()


def test_a_dead_block_that_is_wanted_again_outlives_the_sweep():
    table = BlockTable()
    ids = placed(table, list(range(SWEEP + 500)))
    dropped(table, ids[:20])
    assert placed(table, [7]).tolist() == [ids[7]]
    dropped(table, ids[100 : 100 + SWEEP])
    assert len(table) == 500 - 19
    assert [table.find(number) for number in (6, 7, 8)] == [0, ids[7], 0]


def test_a_block_that_died_twice_is_freed_once():
    table = BlockTable()
    ids = placed(table, list(range(SWEEP + 500)))
    for _ in range(2):
        dropped(table, ids[7:8])
        placed(table, [7])
    dropped(table, ids[:SWEEP])
    again = placed(table, list(range(9000, 9000 + 2 * SWEEP)))
    assert len(set(again.tolist())) == 2 * SWEEP
    assert len(table) == 500 + 2 * SWEEP


def test_an_unknown_block_is_not_mistaken_for_the_deleted_one_whose_cells_remain():
    table = BlockTable()
    ids = placed(table, [1, 2, 3])
    dropped(table, ids[1:2])
    assert table.runs(array("Q", [1, 2, 3])) == [(1, 1)]


def test_a_prompt_in_many_stretches_is_followed_to_its_end():
    table = BlockTable()
    numbers = list(range(1, 101))
    for start in range(10):
        placed(table, numbers[start::10])
    assert table.runs(array("Q", numbers)) == [(1, 100)]
    assert table.runs(array("Q", [*numbers[:50], 999, *numbers[51:]])) == [(1, 50)]


@pytest.mark.parametrize("branch", [1, 2, 3, 31, 32, 62, 63])
def test_a_stretch_ends_where_another_prompt_branches_off(branch):
    table = BlockTable()
    table.reserve(64)
    first, length = table.begin(array("Q", range(64)), 0)
    table.set_of.all[first : first + length] = 1
    assert table.stretch(array("Q", [*range(branch), *range(900, 1000)]), 0) == (first, [1] * branch)


def given_out(spare: Spare, most: int) -> tuple[int, int]:
    spare.choose(most)
    return spare.take(most)


def test_spare_ids_are_given_out_round_and_round():
    spare = Spare()
    spare.append(1, 100)
    assert [given_out(spare, 30) for _ in range(4)] == [(1, 30), (31, 30), (61, 30), (91, 10)]
    spare.give(np.array([5, 6, 7, 8, 20, 21], np.uint32))
    assert given_out(spare, 2) == (5, 2)
    spare.give(np.array([1, 2, 3, 4, 5, 6, 22, 40], np.uint32))
    assert [given_out(spare, 9) for _ in range(3)] == [(20, 3), (40, 1), (1, 8)]
    assert spare.count == 0


def test_a_stretch_of_spare_ids_that_is_too_short_is_passed_over():
    spare = Spare()
    spare.append(1, 100)
    given_out(spare, 100)
    spare.give(np.array([3, 4, 11, 12, 13, 14], np.uint32))
    assert [given_out(spare, 3) for _ in range(3)] == [(11, 3), (14, 1), (3, 2)]


@given(st.sets(st.integers(0, 199)))
def test_a_mask_and_its_members_say_the_same(slots):
    mask = sum(1 << slot for slot in slots)
    assert slots_of(mask) == np.flatnonzero(members(mask, 200)).tolist() == sorted(slots)


def test_a_set_lives_as_long_as_blocks_refer_to_it():
    sets = EndpointSets()
    both = sets.move(0, 0b11, 5)
    one = sets.move(both, 0b01, 2)
    assert (len(sets), sets.masks[both], sets.masks[one]) == (2, 0b11, 0b01)
    assert sets.move(both, 0b01, 3) == one
    assert (len(sets), 0b11 in sets) == (1, False)
    assert sets.move(one, 0, 5) == 0
    assert (len(sets), sets.bytes) == (0, 0)


def test_membership_is_told_for_each_set_asked_about():
    sets = EndpointSets()
    a, ab = sets.move(0, 0b01, 1), sets.move(0, 0b11, 1)
    assert sets.with_member(np.array([ab, 0, a, ab], np.uint32), 1).tolist() == [True, False, False, True]


def recency(blocks: int) -> tuple[Recency, BlockTable]:
    """Of an endpoint with slot 0 that holds the blocks with ids 1 to `blocks`."""
    table, sets = BlockTable(), EndpointSets()
    table.reserve(blocks)
    first, length = table.begin(array("Q", range(blocks)), 0)
    table.set_of.all[first : first + length] = sets.move(0, 1, blocks)
    return Recency(0, blocks, table, sets), table


def test_the_oldest_come_first_and_only_once():
    order, _ = recency(9)
    for touched in ([1, 2, 3], [4, 5], [2, 1], [5]):
        order.touch(array("I", touched))
    assert order.in_order().tolist() == [3, 4, 2, 1, 5]
    order.touch(array("I", [3]))
    assert order.pop_oldest(2).tolist() == [4, 2]
    assert order.pop_oldest(9).tolist() == [1, 5]
    assert order.pop_oldest(9).tolist() == [3]
    assert order.pop_oldest(9).tolist() == []


def test_the_log_stays_short_however_often_blocks_are_used():
    order, _ = recency(1000)
    for start in range(0, 100_000, 50):
        order.touch(array("I", range(start % 1000 + 1, start % 1000 + 51)))
    assert order.bytes <= 1000 * 4 * 1.25
    assert order.in_order().tolist() == list(range(1, 1001))


def test_the_log_forgets_what_is_no_longer_held():
    order, table = recency(100)
    order.touch(array("I", range(1, 101)))
    table.set_of.all[1:51] = 0
    assert order.in_order().tolist() == list(range(51, 101))


def test_a_long_log_keeps_its_order():
    order, _ = recency(300_000)
    ids = list(range(1, 300_001))
    for start in range(0, len(ids), 1000):
        order.touch(array("I", ids[start : start + 1000]))
    order.in_order()
    for start in range(0, 70_000, 1000):
        order.touch(array("I", ids[start : start + 1000]))
    order.touch(array("I", ids[-MOST_TOUCHES:]))
    assert order.in_order().tolist() == ids[70_000:-MOST_TOUCHES] + ids[:70_000] + ids[-MOST_TOUCHES:]


def test_a_log_shrinks_with_what_is_held():
    order, table = recency(1000)
    order.touch(array("I", range(1, 1001)))
    table.set_of.all[11:] = 0
    assert order.in_order().tolist() == list(range(1, 11))
    assert order.bytes < 1000
