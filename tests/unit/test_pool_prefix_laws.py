"""The prefix index against a plain model: one OrderedDict an endpoint, least recently used first."""

from __future__ import annotations

from array import array
from collections import Counter, OrderedDict

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from epp.pool.prefix import DEFAULT_CAPACITY, PrefixIndex

KEYS = [f"ns/e{n}" for n in range(5)]
SPREAD = 0x9E37_79B9_7F4A_7C15

keys = st.sampled_from(KEYS)
# Hashes that follow each other, that meet in one bucket, that are spread over all, and the highest.
FAMILIES = (lambda n: n, lambda n: n << 32, lambda n: n * SPREAD % 2**64, lambda n: 2**64 - 1 - n)


@st.composite
def prompts(draw: st.DrawFn) -> array[int]:
    """Short and long prompts that share beginnings; a hash stands for a block and all before it."""
    family, length = draw(st.integers(0, 3)), draw(st.sampled_from([0, 1, 2, 3, 8, 63, 64, 70, 150]))
    branch, salt = draw(st.sampled_from([0, 1, 2, 20, 100])), draw(st.integers(1, 3))
    away = salt << 20 | branch << 12
    return array("Q", [FAMILIES[family](family << 24 | n | (away if n >= branch else 0)) for n in range(length)])


class Model:
    """Exact least recently used, cut back by a 64th of the capacity when it is exceeded."""

    def __init__(self) -> None:
        self.held: dict[str, OrderedDict[int, None]] = {}
        self.capacity: dict[str, int] = {}
        self.evictions = 0

    def endpoint(self, key: str) -> OrderedDict[int, None]:
        self.capacity.setdefault(key, DEFAULT_CAPACITY)
        return self.held.setdefault(key, OrderedDict())

    def add(self, blocks: array[int], key: str) -> None:
        held = self.endpoint(key)
        for block in blocks[: self.capacity[key]][::-1]:
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


IndexAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
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
def test_many_endpoints_match_what_they_hold(added, asked):
    index, model = PrefixIndex(), Model()
    every = [f"ns/{number}" for number in range(200)]
    for blocks, number in added:
        index.add(blocks, every[number])
        model.add(blocks, every[number])
    assert index.match(asked, index.slots(every)).tolist() == [float(model.match(asked, key)) for key in every]
