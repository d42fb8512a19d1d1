"""Interned sets of endpoints: blocks with the same holders share one number."""

from __future__ import annotations

import sys
from array import array

import numpy as np
import numpy.typing as npt

from epp.pool.prefix_blocks import NOBODY
from epp.pool.prefix_cells import Ids

SET_BYTES = 200
"""What a set costs beside the integer that is its mask: entries of two lists and a dict, its number."""


class EndpointSets:
    """Sets of slots by id: an integer with bit `slot` set for each member, kept while blocks refer to it."""

    __slots__ = ("_free", "_ids", "_refs", "bytes", "masks")

    def __init__(self) -> None:
        self.masks = [0]
        """By id; id NOBODY is the empty set."""
        self.bytes = 0
        self._refs = array("I", [1])
        self._ids = {0: NOBODY}
        self._free: list[int] = []

    def __len__(self) -> int:
        """Sets in use, the empty one aside."""
        return len(self._ids) - 1

    def __contains__(self, mask: int) -> bool:
        return mask in self._ids

    def move(self, old: int, mask: int, blocks: int) -> int:
        """The id of the set with `mask`, to which so many blocks of set `old` now belong."""
        new = self._ids.get(mask)
        if new is None:
            new = self._intern(mask)
        refs = self._refs
        if new:
            refs[new] += blocks
        if old:
            refs[old] -= blocks
            if not refs[old]:
                self._release(old)
        return new

    def _intern(self, mask: int) -> int:
        if self._free:
            new = self._free.pop()
            self.masks[new] = mask
        else:
            new = len(self.masks)
            self.masks.append(mask)
            self._refs.append(0)
        self._ids[mask] = new
        self.bytes += SET_BYTES + sys.getsizeof(mask)
        return new

    def _release(self, old: int) -> None:
        mask = self.masks[old]
        self.bytes -= SET_BYTES + sys.getsizeof(mask)
        del self._ids[mask]
        self.masks[old] = 0
        self._free.append(old)

    def with_member(self, ids: Ids, slot: int) -> npt.NDArray[np.bool_]:
        """For each set id, whether `slot` is a member."""
        present = np.zeros(len(self.masks), np.bool_)
        present[ids] = True
        for each in present.nonzero()[0].tolist():
            present[each] = self.masks[each] >> slot & 1
        return present.take(ids)


def slots_of(mask: int) -> list[int]:
    """The members of a set, in order."""
    return [slot for slot, bit in enumerate(f"{mask:b}"[::-1]) if bit == "1"]


def members(mask: int, slots: int) -> npt.NDArray[np.bool_]:
    """A set as one truth value per slot, shape (slots,); `slots` is a multiple of 8 above all members."""
    octets = np.frombuffer(mask.to_bytes(slots // 8, "little"), np.uint8)
    return np.unpackbits(octets, bitorder="little").view(np.bool_)
