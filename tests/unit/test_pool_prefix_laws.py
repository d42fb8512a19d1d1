"""The prefix index against a plain model: one OrderedDict an endpoint, least recently used first."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from epp.pool.prefix import DEFAULT_CAPACITY, PrefixIndex

KEYS = [f"ns/e{n}" for n in range(5)]
SPREAD = 0x9E37_79B9_7F4A_7C15

# Hashes that meet in few buckets, hashes spread over all of them, and the extremes.
hashes = st.one_of(
    st.integers(0, 40),
    st.integers(0, 40).map(lambda n: n << 40),
    st.integers(0, 400).map(lambda n: n * SPREAD % 2**64),
    st.just(2**64 - 1),
)
keys = st.sampled_from(KEYS)


@st.composite
def prompts(draw: st.DrawFn) -> array[int]:
    """Short and long prompts that share beginnings, and any hashes in any order."""
    if draw(st.booleans()):
        return array("Q", draw(st.lists(hashes, max_size=12)))
    family, length = draw(st.integers(0, 3)), draw(st.sampled_from([1, 3, 8, 63, 64, 70, 150]))
    branch = draw(st.sampled_from([2, 20, 100, 1000]))
    salt = draw(st.integers(0, 3))
    return array("Q", [(family << 32) + n if n < branch else (salt << 48) + (family << 32) + n for n in range(length)])


class Model:
    """Exact least recently used, cut back by a 64th of the capacity when it is exceeded."""

    def __init__(self) -> None:
        self.held: dict[str, OrderedDict[int, None]] = {}
        self.capacity: dict[str, int] = {}
        self.evictions = 0

    def endpoint(self, key: str) -> OrderedDict[int, None]:
        self.capacity.setdefault(key, DEFAULT_CAPACITY)
        return self.held.setdefault(key, OrderedDict())

    def add_blocks(self, blocks: array[int], key: str) -> None:
        held = self.endpoint(key)
        for block in blocks:
            held.pop(block, None)
            held[block] = None
        capacity = self.capacity[key]
        if len(held) > capacity:
            self.evict(key, capacity - capacity // 64)

    def evict(self, key: str, target: int) -> None:
        held = self.held[key]
        while len(held) > target:
            held.popitem(last=False)
            self.evictions += 1

    def add(self, blocks: array[int], key: str) -> None:
        self.endpoint(key)
        self.add_blocks(blocks[: self.capacity[key]][::-1], key)

    def match(self, blocks: array[int], key: str) -> int:
        held = self.held.get(key, ())
        return next((n for n, block in enumerate(blocks) if block not in held), len(blocks))


class IndexAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.index = PrefixIndex()
        self.model = Model()

    @rule(blocks=prompts(), key=keys)
    def add(self, blocks, key):
        self.index.add(blocks, key)
        self.model.add(blocks, key)

    @rule(blocks=prompts(), key=keys)
    def add_blocks(self, blocks, key):
        self.index.add_blocks(blocks, key)
        self.model.add_blocks(blocks, key)

    @rule(blocks=prompts(), key=keys)
    def remove_blocks(self, blocks, key):
        self.index.remove_blocks(blocks, key)
        held = self.model.endpoint(key)
        for block in blocks:
            held.pop(block, None)

    @rule(key=keys, capacity=st.sampled_from([0, 1, 3, 10, 70, 130, 500]))
    def set_capacity(self, key, capacity):
        self.index.set_capacity(key, capacity)
        self.model.endpoint(key)
        self.model.capacity[key] = capacity
        self.model.evict(key, capacity)

    @rule(key=keys)
    def clear(self, key):
        self.index.clear(key)
        self.model.endpoint(key).clear()

    @rule(key=keys)
    def remove(self, key):
        self.index.remove(key)
        self.model.held.pop(key, None)
        self.model.capacity.pop(key, None)

    @rule(blocks=prompts(), order=st.permutations(KEYS))
    def match(self, blocks, order):
        known = [key for key in order if key in self.model.held]
        found = self.index.match(blocks, self.index.slots(known))
        assert found.tolist() == [self.model.match(blocks, key) for key in known]

    @rule(key=keys)
    def entries(self, key):
        assert list(self.index.entries(key)) == list(self.model.endpoint(key))

    @invariant()
    def the_books_balance(self):
        totals = self.index.totals
        holders = Counter(block for held in self.model.held.values() for block in held)
        assert totals.entries == holders.total() == members_of_all_sets(self.index)
        assert totals.blocks == len(holders)
        assert totals.evictions == self.model.evictions
        assert set(self.index.keys()) == set(self.model.held)


def members_of_all_sets(index: PrefixIndex) -> int:
    """Over all blocks, how many endpoints hold each; and every set is referred to by as many blocks as it says."""
    refs = Counter(index._blocks.set_of.all.tolist())
    del refs[0]
    assert {each: index._sets._refs[each] for each in refs} == refs
    assert len(index._sets) == len(refs)
    return sum(index._sets.masks[each].bit_count() * count for each, count in refs.items())


IndexAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIndexAgainstModel = IndexAgainstModel.TestCase


@given(st.lists(st.tuples(prompts(), keys), max_size=20), prompts(), st.permutations(KEYS))
@settings(deadline=None)
def test_shuffled_rows_shuffle_the_matches(added, asked, order):
    index = PrefixIndex()
    for blocks, key in added:
        index.add(blocks, key)
    straight = dict(zip(KEYS, index.match(asked, index.slots(KEYS)).tolist(), strict=True))
    assert index.match(asked, index.slots(order)).tolist() == [straight[key] for key in order]


@given(st.lists(st.tuples(prompts(), st.integers(0, 199)), max_size=30), prompts())
@settings(deadline=None)
def test_one_by_one_and_many_at_once_say_the_same(added, asked):
    index = PrefixIndex()
    for blocks, number in added:
        index.add(blocks, f"ns/{number}")
    few = index._blocks.runs_few(asked.tolist())
    assert index._blocks.runs_many(np.asarray(asked)) == few
