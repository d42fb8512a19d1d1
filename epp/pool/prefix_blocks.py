"""The table of known blocks: hash → block id → id of the set of endpoints that hold the block.

A hash table with separate chaining in flat arrays. Block ids are stable; buckets are split a few hundred at a time as
blocks come (linear hashing), so there is no moment at which everything is rehashed. A block that nobody holds any more
stays linked until a thousand such are unlinked together, or until it is wanted again; there are no tombstones.

New blocks of one prompt get consecutive ids where possible: whoever has found one block looks at the next id before
asking the table, which makes a known prompt one slice of the arrays. One by one through memoryviews for short prompts,
many at once through numpy for long ones; both see the same arrays.
"""

from __future__ import annotations

import mmap
from array import array
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.uint32]
Runs = list[tuple[int, int]]
"""(set id, number of leading blocks up to the end of the run): consecutive blocks with the same holders are one run."""

NOBODY = 0
"""The id of the empty set; also of no block."""
FIRST_BUCKETS = 1024
SPLIT = 512
"""Buckets split at once: enough for numpy to pay, few enough not to be felt."""
MOST_GROWTH = 1 << 14
"""Cells that an array grows by at most."""
SWEEP = 1024
"""Dead blocks unlinked at once."""
CELL_BYTES = 18
"""Of one block: hash 8, set 4, next in chain 4, mark 2."""
STRETCHES = 4
"""Stretches of consecutive ids followed before the rest of a prompt is looked up block by block."""


class Cells:
    """A growing array of unsigned integers: `at` reads and writes one, `all` many.

    A mapping of its own, which the kernel moves by its page table: growing copies nothing and leaves no holes in the
    heap, unless somebody still holds an array taken from `all`, or the system cannot do it.
    """

    __slots__ = ("_code", "_map", "at")

    def __init__(self, code: Literal["H", "I", "Q"], count: int) -> None:
        self._code = code
        self._map = private(count * np.dtype(code).itemsize)
        self.at: memoryview[int] = memoryview(self._map).cast(code)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def all(self) -> npt.NDArray[Any]:  # the element type is known at run time only
        return np.frombuffer(self._map, self._code)

    def grow(self, more: int) -> None:
        """Append `more` zeros."""
        size = len(self._map) + more * self.at.itemsize
        self.at.release()
        try:
            self._map.resize(size)
        except (BufferError, SystemError):
            old, self._map = self._map, private(size)
            self._map[: len(old)] = old
        self.at = memoryview(self._map).cast(self._code)


def private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class BlockTable:
    """Blocks by hash. `set_of` belongs to the caller, who gives up blocks that nobody holds with `delete`."""

    __slots__ = ("_buckets", "_dead", "_free", "_heads", "_next_of", "_wide", "hash_of", "mark", "set_of")

    def __init__(self) -> None:
        # Id 0 is no block, and the id after the last can be looked at.
        self.hash_of = Cells("Q", 2)
        self.set_of = Cells("I", 2)
        self.mark = Cells("H", 2)
        """Scratch space, one cell a block, for whoever has to tell repeated ids."""
        self._next_of = Cells("I", 2)
        self._heads = Cells("I", FIRST_BUCKETS)
        self._free = array("I")
        self._dead = array("I")
        self._buckets = FIRST_BUCKETS
        self._wide = 2 * FIRST_BUCKETS - 1

    def __len__(self) -> int:
        """Blocks that somebody holds."""
        return int(np.count_nonzero(self.set_of.all))

    @property
    def linked(self) -> int:
        """Blocks in the table, the dead ones among them."""
        return len(self.hash_of) - 2 - len(self._free)

    @property
    def bytes(self) -> int:
        return CELL_BYTES * len(self.hash_of) + 4 * (len(self._heads) + len(self._free) + len(self._dead))

    def reserve(self, blocks: int) -> None:
        """Make room for so many new blocks. Arrays taken from the cells before are no longer the table's."""
        if len(self._free) < blocks:
            self._extend(blocks)
        # `linked`, without its calls: this is asked for every prompt.
        if (missing := len(self.hash_of.at) - 2 - len(self._free) + blocks - self._buckets) > 0:
            self._split(missing)

    def _extend(self, blocks: int) -> None:
        first = len(self.hash_of) - 1
        more = max(blocks, min(first >> 4, MOST_GROWTH), FIRST_BUCKETS)
        for cells in (self.hash_of, self.set_of, self.mark, self._next_of):
            cells.grow(more)
        downwards = np.arange(first + more - 1, first - 1, -1, dtype=np.uint32)
        self._free = array("I", downwards.tobytes()) + self._free

    def _split(self, missing: int) -> None:
        """Give the blocks of some buckets twice the buckets: one more bit of the hash tells where they go."""
        while missing > 0:
            size = (self._wide + 1) >> 1
            first = self._buckets - size
            step = min(max(missing, SPLIT), size - first)
            if len(self._heads) < self._buckets + step:
                self._heads.grow(max(step, min(len(self._heads) >> 4, MOST_GROWTH)))
            self._buckets += step
            self._relink(np.arange(first, first + step))
            if self._buckets == 2 * size:
                self._wide = 4 * size - 1
            missing -= step

    def _relink(self, buckets: npt.NDArray[np.intp]) -> None:
        """Chain the blocks of these buckets anew, leaving out those that nobody holds; a bucket may occur twice."""
        heads, next_of, set_of, hash_of = self._heads.all, self._next_of.all, self.set_of.all, self.hash_of.all
        at_hand = heads.take(buckets)
        heads[buckets] = 0
        while len(at_hand := at_hand[at_hand != 0]):
            following = next_of.take(at_hand)
            held = at_hand[set_of.take(at_hand) != NOBODY]
            bucket = self._bucket_of(hash_of.take(held))
            next_of[held] = heads.take(bucket)
            heads[bucket] = held
            at_hand = following

    def _bucket_of(self, hashes: Hashes) -> npt.NDArray[np.int64]:
        bucket = hashes & np.uint64(self._wide)
        narrow = bucket & np.uint64(self._wide >> 1)
        return np.where(bucket >= self._buckets, narrow, bucket).view(np.int64)

    def find(self, wanted: int) -> int:
        """The id of the block with this hash, 0 if there is none."""
        bucket = wanted & self._wide
        if bucket >= self._buckets:
            bucket &= self._wide >> 1
        block = self._heads.at[bucket]
        hash_of, next_of = self.hash_of.at, self._next_of.at
        while block and hash_of[block] != wanted:
            block = next_of[block]
        return block

    def find_many(self, hashes: Hashes) -> Ids:
        hash_of, next_of = self.hash_of.all, self._next_of.all
        ids: Ids = self._heads.all.take(self._bucket_of(hashes))
        open_ = np.flatnonzero((hash_of.take(ids) != hashes) & (ids != 0))
        at_hand, wanted = ids.take(open_), hashes.take(open_)
        while len(open_):
            ids[open_] = at_hand = next_of.take(at_hand)
            on = np.flatnonzero((hash_of.take(at_hand) != wanted) & (at_hand != 0))
            open_, at_hand, wanted = open_.take(on), at_hand.take(on), wanted.take(on)
        return ids

    def leading(self, hashes: Hashes) -> Ids:
        """The ids of the known blocks at the beginning, shape (k,), up to the first that nobody holds."""
        ids = np.empty(len(hashes), np.uint32)
        done = 0
        for _ in range(STRETCHES):
            if done == len(hashes) or not self.set_of.at[block := self.find(int(hashes[done]))]:
                return ids[:done]
            length = self._stretch(block, hashes[done:])
            ids[done : done + length] = np.arange(block, block + length)
            done += length
        ids[done:] = self.find_many(hashes[done:])
        unknown = np.flatnonzero(self.set_of.all.take(ids[done:]) == NOBODY)
        return ids[: done + int(unknown[0])] if len(unknown) else ids

    def _stretch(self, block: int, hashes: Hashes) -> int:
        """How many blocks with these hashes stand one after another from `block` on; at least that one."""
        after = slice(block, min(block + len(hashes), len(self.hash_of)))
        stored = self.hash_of.all[after]
        same = (stored == hashes[: len(stored)]) & (self.set_of.all[after] != NOBODY)
        return int(same.argmin()) or len(stored)

    def runs_few(self, hashes: list[int]) -> Runs:
        """The holders of the leading known blocks."""
        hash_of, set_of = self.hash_of.at, self.set_of.at
        runs: Runs = []
        block = current = done = 0
        for wanted in hashes:
            block += 1
            if hash_of[block] != wanted or not set_of[block]:
                block = self.find(wanted)
            holders = set_of[block]
            if holders != current:
                if current:
                    runs.append((current, done))
                current = holders
            if not holders:
                break
            done += 1
        if current:
            runs.append((current, done))
        return runs

    def runs_many(self, hashes: Hashes) -> Runs:
        ids = self.leading(hashes)
        if not len(ids):
            return []
        holders = self.set_of.all.take(ids)
        ends = [*(np.flatnonzero(holders[1:] != holders[:-1]) + 1).tolist(), len(holders)]
        return [(int(holders[end - 1]), end) for end in ends]

    def place_few(self, hashes: list[int]) -> list[int]:
        """The ids of these blocks, the unknown ones added, held by nobody; needs `reserve`."""
        hash_of, set_of, next_of, heads = self.hash_of.at, self.set_of.at, self._next_of.at, self._heads.at
        wide, buckets = self._wide, self._buckets
        ids: list[int] = []
        block = 0
        for wanted in hashes:
            block += 1
            if hash_of[block] != wanted or not set_of[block]:
                bucket = wanted & wide
                if bucket >= buckets:
                    bucket &= wide >> 1
                block = head = heads[bucket]
                while block and hash_of[block] != wanted:
                    block = next_of[block]
                if not block:
                    block = heads[bucket] = self._free.pop()
                    hash_of[block] = wanted
                    next_of[block] = head
            ids.append(block)
        return ids

    def place_many(self, hashes: Hashes) -> Ids:
        """As `place_few`, without repeats among the hashes."""
        known = self.leading(hashes)
        if len(known) == len(hashes):
            return known
        rest = self.find_many(hashes[len(known) :])
        unknown = np.flatnonzero(rest == 0)
        rest[unknown] = self._insert_many(hashes[len(known) :][unknown])
        return np.concatenate((known, rest))

    def _insert_many(self, hashes: Hashes) -> Ids:
        start = len(self._free) - len(hashes)
        ids: Ids = np.array(self._free[start:], np.uint32)[::-1]
        del self._free[start:]
        self.hash_of.all[ids] = hashes
        heads, next_of = self._heads.all, self._next_of.all
        todo, bucket = ids, self._bucket_of(hashes)
        while len(todo):  # of several new blocks in one bucket, one gets its head each time round
            before = heads[bucket]
            heads[bucket] = todo
            first = heads[bucket] == todo
            next_of[todo[first]] = before[first]
            todo, bucket = todo[~first], bucket[~first]
        return ids

    def delete(self, ids: Ids) -> None:
        """Give up these distinct blocks, whose set the caller has put to NOBODY."""
        self._dead.frombytes(ids.tobytes())
        if len(self._dead) >= SWEEP:
            self._sweep()

    def _sweep(self) -> None:
        """Unlink the dead blocks and free their ids."""
        ids = np.sort(np.frombuffer(self._dead, np.uint32))
        once = self.set_of.all.take(ids) == NOBODY
        once[1:] &= ids[1:] != ids[:-1]  # wanted again and dead again: twice in the list
        ids = ids[once]
        self._dead = array("I")
        self._free.frombytes(ids[::-1].tobytes())
        self._relink(self._bucket_of(self.hash_of.all.take(ids)))
