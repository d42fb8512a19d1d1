"""What one endpoint holds, in the order of last use.

A log of block ids, one for each touch. An id counts where it occurs last; earlier occurrences, and blocks that the
endpoint no longer holds, are dead weight, cleared out when the log is full, a quarter longer than it need be. Up to
`_settled` the log has been cleared out: each id occurs there once. So a touch costs one append, the order is exact,
and an entry costs 4 to 5 bytes.
"""

from __future__ import annotations

from array import array

import numpy as np

from epp.pool.prefix_blocks import BlockTable
from epp.pool.prefix_cells import Ids
from epp.pool.prefix_sets import EndpointSets

UNTOUCHED = 0xFFFF
"""Of the 16-bit scratch cells; lower values are places among the touches since the log was cleared out."""
MOST_TOUCHES = 0x8000
"""Touches at once."""
LEAST_SLACK = 64


class Recency:
    """The blocks of one endpoint. `held` counts them and is kept by the index, which knows the sets."""

    __slots__ = (
        "_at",
        "_blocks",
        "_head",
        "_limit",
        "_log",
        "_sets",
        "_settled",
        "_tail",
        "capacity",
        "held",
        "slot",
    )

    def __init__(self, slot: int, capacity: int, blocks: BlockTable, sets: EndpointSets) -> None:
        self.slot = slot
        self.capacity = capacity
        self.held = 0
        self._blocks = blocks
        self._sets = sets
        self._log: Ids = np.empty(0, np.uint32)
        self._at = self._log.data
        self._head = self._settled = self._tail = self._limit = 0

    @property
    def bytes(self) -> int:
        return self._log.nbytes

    def reserve(self, touches: int) -> None:
        """Make room for so many touches, while `held` counts none that the log lacks."""
        if self._tail + touches > self._limit:
            self.clear_out(touches)

    def touch(self, ids: array[int]) -> None:
        """Note that these blocks were used, the last of them most recently. At most MOST_TOUCHES."""
        if self._tail + len(ids) > self._limit:
            self.clear_out(len(ids))
        tail = self._tail + len(ids)
        self._at[self._tail : tail] = ids
        self._tail = tail

    def clear_out(self, room: int = 0) -> None:
        """Keep what counts, and room for so many touches at least."""
        mark = self._blocks.mark.all
        settled, recent = self._log[self._head : self._settled], self._log[self._settled : self._tail]
        places = np.arange(len(recent), dtype=np.uint16)
        mark[settled] = UNTOUCHED
        mark[recent] = places  # of an id that occurs twice, the last place stays
        kept = np.concatenate((settled[mark.take(settled) == UNTOUCHED], recent[mark.take(recent) == places]))
        if len(kept) != self.held:
            kept = kept[self._sets.with_member(self._blocks.set_of.all.take(kept), self.slot)]
        self._settle(kept, room)

    def _settle(self, kept: Ids, room: int) -> None:
        slack = max(len(kept) >> 2, LEAST_SLACK)
        if not max(slack >> 1, room) <= len(self._log) - len(kept) <= 4 * slack + room:
            self._log = np.empty(len(kept) + max(slack, room), np.uint32)
            self._at = self._log.data
        self._log[: len(kept)] = kept
        self._head = 0
        self._settled = self._tail = len(kept)
        self._limit = min(len(self._log), len(kept) + UNTOUCHED)

    def pop_oldest(self, blocks: int) -> Ids:
        """Take up to so many blocks from the old end of the log; some of them may no longer be held.

        Fewer, even none, may come while more are held: call again.
        """
        if self._head == self._settled:
            self.clear_out()
        mark = self._blocks.mark.all
        front = self._log[self._head : min(self._head + blocks + (blocks >> 1) + LEAST_SLACK, self._settled)]
        mark[front] = UNTOUCHED
        mark[self._log[self._settled : self._tail]] = 0
        idle = (mark.take(front) == UNTOUCHED).nonzero()[0][:blocks]
        self._head += idle.item(-1) + 1 if len(idle) else len(front)
        oldest: Ids = front.take(idle)
        return oldest

    def in_order(self) -> Ids:
        """The blocks held, least recently used first; good until the next touch."""
        self.clear_out()
        return self._log[: self._tail]
