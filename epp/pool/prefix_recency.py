"""What one endpoint holds, in the order of last use.

A log of block ids, one for each touch. An id counts where it occurs last; earlier occurrences, and blocks that the
endpoint no longer holds, are dead weight which is cleared out when the log is a quarter longer than it need be. Up to
`_settled` the log has been cleared out: each id occurs there once. So a touch costs one append, the order is exact,
and an entry costs 4 to 5 bytes.
"""

from __future__ import annotations

from array import array

import numpy as np

from epp.pool.prefix_blocks import BlockTable, Ids
from epp.pool.prefix_sets import EndpointSets

UNTOUCHED = 0xFFFF
MOST_TOUCHES = 0x8000
"""Touches at once, and since the log was cleared out; their places must fit the 16-bit scratch cells, twice."""
LEAST_SLACK = 64


class Recency:
    """The blocks of one endpoint. `held` counts them and is kept by the index, which knows the sets."""

    __slots__ = ("_blocks", "_head", "_limit", "_log", "_sets", "_settled", "capacity", "held", "slot")

    def __init__(self, slot: int, capacity: int, blocks: BlockTable, sets: EndpointSets) -> None:
        self.slot = slot
        self.capacity = capacity
        self.held = 0
        self._blocks = blocks
        self._sets = sets
        self._log = array("I")
        self._head = 0
        self._settled = 0
        self._limit = LEAST_SLACK

    @property
    def bytes(self) -> int:
        return len(self._log) * self._log.itemsize

    def touch(self, ids: array[int]) -> None:
        """Note that these blocks were used, the last of them most recently. At most MOST_TOUCHES."""
        self._log.extend(ids)
        if len(self._log) > self._limit:
            self._clear_out()

    def _clear_out(self) -> None:
        log, mark = np.frombuffer(self._log, np.uint32), self._blocks.mark.all
        settled, recent = log[self._head : self._settled], log[self._settled :]
        places = np.arange(len(recent), dtype=np.uint16)
        mark[settled] = UNTOUCHED
        mark[recent] = places  # of an id that occurs twice, the last place stays
        kept = np.concatenate((settled[mark[settled] == UNTOUCHED], recent[mark[recent] == places]))
        kept = kept[self._sets.with_member(self._blocks.set_of.all[kept], self.slot)]
        self._log = array("I", kept.tobytes())
        self._head = 0
        self._settled = len(kept)
        self._limit = len(kept) + min(max(len(kept) >> 2, LEAST_SLACK), MOST_TOUCHES - 1)

    def pop_oldest(self, blocks: int) -> Ids:
        """Take up to so many blocks from the old end of the log; some of them may no longer be held.

        Empty only if nothing is held; else call again for more.
        """
        if self._head == self._settled:
            self._clear_out()
        log, mark = np.frombuffer(self._log, np.uint32), self._blocks.mark.all
        front = log[self._head : min(self._head + blocks + (blocks >> 1) + LEAST_SLACK, self._settled)]
        mark[front] = UNTOUCHED
        mark[log[self._settled :]] = 0
        idle = np.flatnonzero(mark[front] == UNTOUCHED)[:blocks]
        self._head += int(idle[-1]) + 1 if len(idle) else len(front)
        return front[idle]

    def in_order(self) -> Ids:
        """The blocks held, least recently used first; a copy."""
        self._clear_out()
        return np.array(self._log, np.uint32)
