"""Which endpoint holds which prompt blocks.

A block is known by its 64-bit chained hash alone (`prefix_hash`): two different blocks with one hash would be taken for
each other, which among ten million blocks has a chance of one in 400,000 to occur. Hashes always come from the first of
a prompt on. Four parts, in flat arrays:

- `prefix_blocks`: hash → block id → id of the set of endpoints that hold the block; 18 to 22 bytes a block;
- `prefix_sets`: these sets, interned, so that a block which all endpoints hold costs one entry, and a run of blocks
  with the same holders is matched in one step;
- `prefix_recency`: per endpoint a log of touched block ids; 4 to 5 bytes an entry;
- `PrefixIndex`, which keeps the three true to each other.

A match is contiguous: it ends at the first block that the endpoint does not hold, whatever it holds after that. (The
llm-d router counts later blocks too.)

Eviction is least recently used per endpoint, in exact order, but several at a time: an endpoint that would exceed its
capacity is cut back to 63/64 of it. So it never holds more than `capacity` blocks, and once full always the
`capacity - capacity // 64` that it used last. Beside an index that evicts one by one, 0.03 % of the matched blocks of
growing conversations were missed (benchmarks/prefix.py). A prompt counts as used from its last block to its first: its
beginning outlives its end.

An entry, one block on one endpoint, costs at most 30 bytes and less where blocks are shared. Many sets for few entries
would break that; when they are about to, a block that would need yet another set is given to its newest holder alone
and the others forget it. It takes thousands of prompts of one or two blocks, each on endpoints of its own choosing.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from epp.pool.prefix_blocks import NOBODY, BlockTable, Hashes, Runs
from epp.pool.prefix_cells import Ids
from epp.pool.prefix_hash import chain_hashes
from epp.pool.prefix_recency import MOST_TOUCHES, Recency
from epp.pool.prefix_sets import EndpointSets, members, slots_of
from epp.types import Column

__all__ = ["DEFAULT_CAPACITY", "PrefixIndex", "Slots", "Totals", "chain_hashes"]

Slots = npt.NDArray[np.intp]
"""The index's own number of each endpoint, in the order of the table's rows, shape (n,)."""

DEFAULT_CAPACITY = 31_250
"""Blocks an endpoint is taken to hold while its own number is unknown; as the llm-d router."""
SPARE_SHIFT = 6
"""An endpoint over capacity is cut back by capacity >> this, at once."""
SET_BYTES = 1 << 18
"""Sets may cost this much, and what blocks and logs leave of 30 bytes an entry."""
ENTRY_BYTES_LESS_LOG = 25
BLOCK_BYTES = 22


@dataclass(frozen=True, slots=True)
class Totals:
    """The index in numbers."""

    entries: int
    """Blocks, counted once for each endpoint that holds them."""
    blocks: int
    sets: int
    bytes: int
    evictions: int
    """Entries that gave way to newer ones, ever."""


class PrefixIndex:
    """Endpoints by key (`namespace/name`), each with the blocks it holds; unknown keys are added with no blocks."""

    __slots__ = (
        "_blocks",
        "_endpoints",
        "_entries",
        "_evictions",
        "_one",
        "_reach",
        "_sets",
        "_slots",
        "_vacant",
    )

    def __init__(self) -> None:
        self._blocks = BlockTable()
        self._sets = EndpointSets()
        self._slots: dict[str, int] = {}
        self._endpoints: list[Recency] = []
        self._vacant: list[int] = []
        self._reach = np.zeros(0)
        self._one = array("I", [NOBODY])
        """To be repeated: to make an array costs as much as to copy a hundred numbers into it."""
        self._entries = 0
        self._evictions = 0

    def slots(self, keys: Iterable[str]) -> Slots:
        """What `match` takes; good until one of the keys is removed."""
        return np.array([self._endpoint(key).slot for key in keys], np.intp)

    def match(self, hashes: Hashes, slots: Slots) -> Column:
        """How many of these blocks, counted from the first without a gap, each endpoint holds; shape of `slots`."""
        runs = self._blocks.runs(hashes)
        if not runs:
            return np.zeros(len(slots))
        reach = self._reach
        reach.fill(0.0)
        for mask, length in self._ends(runs):
            if mask & (mask - 1):
                reach[members(mask, len(reach))] = length
            else:
                reach[mask.bit_length() - 1] = length
        return reach[slots]

    def _ends(self, runs: Runs) -> list[tuple[int, int]]:
        """(endpoints as a mask, how far their match goes), each endpoint in at most one mask."""
        masks = self._sets.masks
        ends: list[tuple[int, int]] = []
        still, length = masks[runs[0][0]], 0
        for holders, end in runs:
            on = still & masks[holders]
            if on != still:
                ends.append((still ^ on, length))
                still = on
                if not on:
                    return ends
            length = end
        ends.append((still, length))
        return ends

    def add(self, hashes: Hashes, key: str) -> None:
        """The endpoint holds the blocks of this prompt, and has used the first of them last."""
        endpoint = self._endpoint(key)
        self._touch(endpoint, hashes[: endpoint.capacity] if len(hashes) > endpoint.capacity else hashes)

    def clear(self, key: str) -> None:
        """The endpoint holds nothing. It stays known, with its slot and capacity."""
        endpoint = self._endpoint(key)
        self._cut_back(endpoint, 0)
        endpoint.clear_out()

    def remove(self, key: str) -> None:
        """Forget the endpoint; its slot will be given to another one."""
        if key in self._slots:
            self.clear(key)
            heapq.heappush(self._vacant, self._slots.pop(key))

    def set_capacity(self, key: str, blocks: int) -> None:
        """The endpoint has room for so many blocks: its KV-cache blocks × their tokens ÷ our tokens a block.

        Raises ValueError below 0.
        """
        if blocks < 0:
            raise ValueError(f"capacity of {key} is {blocks} blocks; give 0 or more")
        endpoint = self._endpoint(key)
        endpoint.capacity = blocks
        self._evict(endpoint, blocks)

    def keys(self) -> tuple[str, ...]:
        """The endpoints known, in the order they came."""
        return tuple(self._slots)

    def entries(self, key: str) -> array[int]:
        """The hashes of the blocks it holds, least recently used first."""
        return array("Q", self._blocks.hash_of.all[self._endpoint(key).in_order()].tobytes())

    @property
    def totals(self) -> Totals:
        logs = sum(endpoint.bytes for endpoint in self._endpoints)
        return Totals(
            entries=self._entries,
            blocks=len(self._blocks),
            sets=len(self._sets),
            bytes=self._blocks.bytes + self._sets.bytes + logs,
            evictions=self._evictions,
        )

    def _endpoint(self, key: str) -> Recency:
        slot = self._slots.get(key)
        return self._welcome(key) if slot is None else self._endpoints[slot]

    def _welcome(self, key: str) -> Recency:
        slot = heapq.heappop(self._vacant) if self._vacant else len(self._endpoints)
        endpoint = Recency(slot, DEFAULT_CAPACITY, self._blocks, self._sets)
        self._slots[key] = slot
        self._endpoints[slot : slot + 1] = [endpoint]
        if slot >= len(self._reach):
            self._reach = np.zeros(len(self._reach) + 64)
        return endpoint

    def _touch(self, endpoint: Recency, hashes: Hashes) -> None:
        """Hold these blocks and use them from the last to the first."""
        self._blocks.reserve(len(hashes))
        endpoint.reserve(min(len(hashes), MOST_TOUCHES))
        ids = self._hold(endpoint, hashes)
        if len(ids) <= MOST_TOUCHES:
            endpoint.touch(ids)
        else:
            for start in range(0, len(ids), MOST_TOUCHES):
                endpoint.touch(ids[start : start + MOST_TOUCHES])
        if endpoint.held > endpoint.capacity:
            self._evict(endpoint, endpoint.capacity - (endpoint.capacity >> SPARE_SHIFT))

    def _hold(self, endpoint: Recency, hashes: Hashes) -> array[int]:
        """The ids of these blocks from the last to the first."""
        blocks = self._blocks
        ids = array("I")
        done = 0
        while done < len(hashes):
            first, sets = blocks.stretch(hashes, done)
            if first:
                length = len(sets)
                self._join_stretch(endpoint, first, sets)
            else:
                first, length = blocks.begin(hashes, done)
                joined = self._join(endpoint, NOBODY, length)
                one = self._one
                one[0] = joined
                blocks.set_of.at[first : first + length] = one * length
            backwards = array("I", range(first + length - 1, first - 1, -1))
            ids = backwards + ids if done else backwards
            done += length
        return ids

    def _join_stretch(self, endpoint: Recency, first: int, sets: list[int]) -> None:
        set_of = self._blocks.set_of.at
        start = 0
        while start < len(sets):
            old = sets[start]
            end = start + 1
            while end < len(sets) and sets[end] == old:
                end += 1
            joined = self._join(endpoint, old, end - start)
            if joined != old:
                self._one[0] = joined
                set_of[first + start : first + end] = self._one * (end - start)
            start = end

    def _join(self, endpoint: Recency, old: int, blocks: int) -> int:
        """The set of so many blocks of set `old` once the endpoint holds them too."""
        holders = self._sets.masks[old]
        mine = 1 << endpoint.slot
        if holders & mine:
            return old
        wanted = holders | mine
        if old and wanted not in self._sets and self._sets.bytes > self._set_budget:
            wanted = mine
            for slot in slots_of(holders):
                self._count(self._endpoints[slot], -blocks)
        self._count(endpoint, blocks)
        return self._sets.move(old, wanted, blocks)

    def _leave(self, endpoint: Recency, old: int, blocks: int) -> int:
        """The set of so many blocks of set `old` once the endpoint holds them no more."""
        holders = self._sets.masks[old]
        mine = 1 << endpoint.slot
        if not holders & mine:
            return old
        self._count(endpoint, -blocks)
        return self._sets.move(old, holders ^ mine, blocks)

    @property
    def _set_budget(self) -> int:
        return SET_BYTES + ENTRY_BYTES_LESS_LOG * self._entries - BLOCK_BYTES * self._blocks.known

    def _count(self, endpoint: Recency, blocks: int) -> None:
        endpoint.held += blocks
        self._entries += blocks

    def _evict(self, endpoint: Recency, target: int) -> None:
        before = endpoint.held
        self._cut_back(endpoint, target)
        self._evictions += before - endpoint.held

    def _cut_back(self, endpoint: Recency, target: int) -> None:
        while endpoint.held > target:
            self._drop(endpoint, endpoint.pop_oldest(endpoint.held - target))

    def _drop(self, endpoint: Recency, ids: Ids) -> None:
        """The endpoint no longer holds these distinct blocks; what nobody holds then is forgotten."""
        if not len(ids):
            return
        set_of = self._blocks.set_of.all
        before: Ids = set_of.take(ids)
        first = before.item(0)
        alike = before.tobytes()
        if alike == alike[:4] * len(ids):
            set_of[ids] = left = self._leave(endpoint, first, len(ids))
            if first and not left:
                self._blocks.delete(ids)
            return
        each, which, counts = np.unique(before, return_inverse=True, return_counts=True)
        after = [self._leave(endpoint, old, blocks) for old, blocks in zip(each.tolist(), counts.tolist(), strict=True)]
        set_of[ids] = now = np.array(after, np.uint32)[which]
        self._blocks.delete(ids[(before != NOBODY) & (now == NOBODY)])
