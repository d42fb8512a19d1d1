"""KV-cache blocks and the prefix cache they form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockPool:
    """The blocks of one engine: in use with a hash (shared, counted), in use without, idle but cached, free.

    Always used + idle ≤ size. Idle blocks are evicted least recently used first; of one request the last block
    goes before the first, so that what remains of a prefix is a prefix.
    """

    __slots__ = ("_idle", "_private", "_refs", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._refs: dict[int, int] = {}
        self._private = 0
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def used(self) -> int:
        return len(self._refs) + self._private

    @property
    def idle(self) -> int:
        return len(self._idle)

    @property
    def available(self) -> int:
        """Blocks that can be had: free or evictable."""
        return self.size - len(self._refs) - self._private

    def cached(self, chain: Sequence[int], limit: int) -> tuple[int, int]:
        """How many of the first `limit` blocks of a chain are here without a gap, and how many of those are idle."""
        refs, idle = self._refs, self._idle
        found = unused = 0
        for block in chain[:limit]:
            if block in idle:
                unused += 1
            elif block not in refs:
                break
            found += 1
        return found, unused

    def take(self, chain: Sequence[int], hits: int, total: int) -> list[int]:
        """Hold `total` blocks, at least as many as the chain: its first `hits` are here. Returns the hashed ones held.

        A new block whose hash is here already (after a gap, or computed by a neighbour) stays without one.
        """
        refs, idle = self._refs, self._idle
        held = list(chain[:hits])
        for block in held:
            if block in refs:
                refs[block] += 1
            else:
                del idle[block]
                refs[block] = 1
        fresh = [block for block in chain[hits:] if block not in refs and block not in idle]
        refs.update(dict.fromkeys(fresh, 1))
        held += fresh
        self._private += total - len(held)
        self._evict()
        return held

    def grow(self, count: int) -> None:
        """Hold `count` more blocks without a hash."""
        self._private += count
        self._evict()

    def release(self, held: Sequence[int], private: int, grown: Sequence[int]) -> None:
        """Let go of `held` hashed and `private` other blocks; of these, `grown` are full and stay cached."""
        refs, idle = self._refs, self._idle
        self._private -= private
        for block in reversed(grown):
            if block not in refs and block not in idle:
                idle[block] = None
        for block in reversed(held):
            count = refs[block] - 1
            if count:
                refs[block] = count
            else:
                del refs[block]
                idle[block] = None

    def _evict(self) -> None:
        for _ in range(self.used + len(self._idle) - self.size):
            self._idle.popitem(last=False)
