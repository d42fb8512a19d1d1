"""The table of known blocks: hash → block id → id of the set of endpoints that hold the block.

New blocks of one prompt get consecutive ids, a *stretch*, where there are such; only the first of a stretch is in the
hash table, and the others are found behind it, many in one comparison. That is right because hashes are chained: a
block is never asked for without the blocks before it, nor held without them. (Where endpoints forget blocks to spare
sets, one may be: it is entered anew when it is wanted, and its old entry grows old.)

The hash table chains separately, in flat arrays. Block ids are stable; buckets are split a few hundred at a time as
blocks come (linear hashing), so there is no moment at which everything is rehashed. A block that nobody holds any more
stays until some thousand are unlinked together; there are no tombstones.
"""

from __future__ import annotations

from array import array
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from epp.pool.prefix_cells import Cells, Ids, Spare

Hashes: TypeAlias = "array[int]"  # an array takes no subscript before Python 3.12
"""Of a prompt's blocks, chained: unsigned 64-bit, array("Q")."""
Runs = list[tuple[int, int]]
"""(set id, number of leading blocks up to the end of the run): consecutive blocks with the same holders are one run."""

NOBODY = 0
"""The id of the empty set; also of no block."""
FIRST_BUCKETS = 1024
SPLIT = 512
"""Buckets split at once: enough for numpy to pay, few enough not to be felt."""
MOST_GROWTH = 1 << 14
"""Cells that an array grows by at most."""
SWEEP = 2048
"""Dead blocks unlinked at once."""
CELL_BYTES = 18
"""Of one block: hash 8, set 4, next in chain 4, mark 2."""
SLACK_SHIFT = 4
"""So much of what there are blocks may be spare, that stretches become no shorter than they must."""
UNLINKED = 0xFFFF_FFFF
"""In place of the next in chain: the id is spare, or its block found by the one before it."""


class BlockTable:
    """Blocks by hash. `set_of` belongs to the caller, who gives up blocks that nobody holds with `delete`."""

    __slots__ = ("_buckets", "_dead", "_heads", "_linked", "_next_of", "_spare", "_wide", "hash_of", "mark", "set_of")

    def __init__(self) -> None:
        # Id 0 is no block, and the id after the last can be looked at.
        self.hash_of = Cells("Q", 2)
        self.set_of = Cells("I", 2)
        self.mark = Cells("H", 2)
        """Scratch space, one cell a block, for whoever has to tell repeated ids."""
        self._next_of = Cells("I", 2)
        self._heads = Cells("I", FIRST_BUCKETS)
        self._spare = Spare()
        self._linked = 0
        self._dead = array("I")
        self._buckets = FIRST_BUCKETS
        self._wide = 2 * FIRST_BUCKETS - 1

    def __len__(self) -> int:
        """Blocks that somebody holds."""
        return int(np.count_nonzero(self.set_of.all))

    @property
    def known(self) -> int:
        """Blocks in the table, the dead ones among them."""
        return len(self.hash_of) - 2 - self._spare.count

    @property
    def bytes(self) -> int:
        return CELL_BYTES * len(self.hash_of) + 4 * (len(self._heads) + len(self._dead)) + self._spare.bytes

    def reserve(self, blocks: int) -> None:
        """Make room for so many new blocks. Arrays taken from the cells before are no longer the table's."""
        if self._spare.count < blocks:
            self._extend(blocks)
        if (missing := self._linked + blocks - self._buckets) > 0:
            self._split(missing)

    def _extend(self, blocks: int) -> None:
        first = len(self.hash_of) - 1
        more = max(blocks, min(first >> 4, MOST_GROWTH), FIRST_BUCKETS)
        for cells in (self.hash_of, self.set_of, self.mark, self._next_of):
            cells.grow(more)
        self._next_of.all[first:] = UNLINKED
        self._spare.append(first, more)

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

    def _bucket_of(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        bucket = hashes & np.uint64(self._wide)
        narrow = bucket & np.uint64(self._wide >> 1)
        return np.where(bucket >= self._buckets, narrow, bucket).view(np.int64)

    def find(self, wanted: int) -> int:
        """The id of the block with this hash, 0 if there is none that begins a stretch."""
        bucket = wanted & self._wide
        if bucket >= self._buckets:
            bucket &= self._wide >> 1
        block = self._heads.at[bucket]
        hash_of, next_of = self.hash_of.at, self._next_of.at
        while block and hash_of[block] != wanted:
            block = next_of[block]
        return block

    def stretch(self, hashes: Hashes, done: int) -> tuple[int, list[int]]:
        """The id of the block at `done`, 0 if it is unknown; and the sets of it and of those behind it by the next ids.

        Either all of them are held, or it is one block that nobody holds any more.
        """
        block = self.find(hashes[done])
        if not block:
            return 0, []
        sets = self.set_of.at[block : block + self._alike(block, hashes, done)].tolist()
        if NOBODY in sets:
            # What stands there may be freed, and the block known by another id.
            del sets[sets.index(NOBODY) or 1 :]
        return block, sets

    def _alike(self, block: int, hashes: Hashes, done: int) -> int:
        """How many cells from `block` on have the hashes from `done` on; the first has."""
        hash_of = self.hash_of.at
        end = min(len(hashes) - done, len(hash_of) - block)
        if end == 1 or hash_of[block + 1] != hashes[done + 1]:
            return 1
        wanted = hashes[done : done + end]
        if hash_of[block : block + end] == wanted:
            return end
        same = 2
        while end - same > 1:
            middle = (same + end) >> 1
            if hash_of[block + same : block + middle] == wanted[same:middle]:
                same = middle
            else:
                end = middle
        return same

    def runs(self, hashes: Hashes) -> Runs:
        """The holders of the leading known blocks."""
        runs: Runs = []
        current = done = 0
        while done < len(hashes):
            block, sets = self.stretch(hashes, done)
            if not block or not sets[0]:
                break
            if sets[0] == current and sets.count(current) == len(sets):
                done += len(sets)
                continue
            for holders in sets:
                if holders != current:
                    if current:
                        runs.append((current, done))
                    current = holders
                done += 1
        if current:
            runs.append((current, done))
        return runs

    def begin(self, hashes: Hashes, done: int) -> tuple[int, int]:
        """Add the unknown blocks from `done` on, held by nobody: (first id, how many); needs `reserve`."""
        wanted = len(hashes) - done
        if self._spare.choose(wanted) < wanted >> 1 and self._spare.count < self.known >> SLACK_SHIFT:
            self._extend(wanted)
        first, length = self._spare.take(wanted)
        end = first + length
        self.hash_of.at[first:end] = hashes[done : done + length]
        heads = self._heads.at
        bucket = hashes[done] & self._wide
        if bucket >= self._buckets:
            bucket &= self._wide >> 1
        self._next_of.at[first] = heads[bucket]
        heads[bucket] = first
        self._linked += 1
        return first, length

    def delete(self, ids: Ids) -> None:
        """Give up these distinct blocks, whose set the caller has put to NOBODY."""
        self._dead.frombytes(ids.tobytes())
        if len(self._dead) >= SWEEP:
            self._sweep()

    def _sweep(self) -> None:
        """Unlink the dead blocks and give their ids back."""
        ids = np.sort(np.frombuffer(self._dead, np.uint32))
        once = self.set_of.all.take(ids) == NOBODY
        once[1:] &= ids[1:] != ids[:-1]  # wanted again and dead again: twice in the list
        ids = ids[once]
        self._dead = array("I")
        if not len(ids):
            return
        self._spare.give(ids)
        linked = ids[self._next_of.all.take(ids) != UNLINKED]
        self._linked -= len(linked)
        self._relink(self._bucket_of(self.hash_of.all.take(linked)))
        self._next_of.all[linked] = UNLINKED
