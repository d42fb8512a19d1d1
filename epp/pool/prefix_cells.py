"""Growing arrays of unsigned integers, and which of their cells are free: the memory of the prefix index."""

from __future__ import annotations

import mmap
from array import array
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.uint32]
LOOKED_AT = 8
"""Stretches of spare ids looked at for one that is long enough."""


class Cells:
    """A growing array of unsigned integers: `at` reads and writes one or a slice, `all` many.

    A mapping of its own, which the kernel moves by its page table: growing copies nothing and leaves no holes in the
    heap, unless somebody still holds an array taken from `all`, or the system cannot do it.
    """

    __slots__ = ("_code", "_map", "_type", "at")

    def __init__(self, code: Literal["H", "I", "Q"], count: int) -> None:
        self._code = code
        self._type: np.dtype[Any] = np.dtype(code)
        self._map = private(count * self._type.itemsize)
        self.at: memoryview[int] = memoryview(self._map).cast(code)

    def __len__(self) -> int:
        return len(self.at)

    @property
    def all(self) -> npt.NDArray[Any]:  # the element type is known at run time only
        return np.frombuffer(self._map, self._type)

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


class Spare:
    """Ids that no block has, as stretches of consecutive ones.

    They are given out in one direction, round and round: blocks that came together go together, so what is free lies
    together as well.
    """

    __slots__ = ("_at", "_firsts", "_lengths", "_reached", "count")

    def __init__(self) -> None:
        self.count = 0
        self._firsts = array("I")
        """Ascending."""
        self._lengths = array("I")
        self._at = 0
        """The stretch that is given out next."""
        self._reached = 0
        """The id behind the last that was given out."""

    @property
    def bytes(self) -> int:
        return 8 * len(self._firsts)

    def append(self, first: int, length: int) -> None:
        """These are above all others, and come next."""
        self.count += length
        self._at = len(self._firsts)
        self._firsts.append(first)
        self._lengths.append(length)

    def give(self, ids: Ids) -> None:
        """Ids in ascending order, at least one."""
        self.count += len(ids)
        begins = np.flatnonzero(np.diff(ids, prepend=ids[:1]) != 1)
        firsts = np.concatenate((np.frombuffer(self._firsts, np.uint32), ids[begins]))
        lengths = np.concatenate((np.frombuffer(self._lengths, np.uint32), np.diff(begins, append=len(ids))))
        order = np.argsort(firsts)
        firsts, lengths = firsts[order], lengths[order]
        apart = np.flatnonzero(np.concatenate(([True], firsts[1:] != firsts[:-1] + lengths[:-1])))
        together = np.add.reduceat(lengths, apart).astype(np.uint32)
        self._at = int(np.searchsorted(firsts[apart], self._reached))
        self._firsts = array("I", firsts[apart].tobytes())
        self._lengths = array("I", together.tobytes())

    def choose(self, most: int) -> int:
        """Go to the next stretch of `most` ids or more, or the longest of the next few; its length."""
        lengths = self._lengths
        best = self._at if self._at < len(lengths) else 0
        if lengths[best] < most:
            for at in range(best + 1, min(best + LOOKED_AT, len(lengths))):
                if lengths[at] > lengths[best]:
                    best = at
                    if lengths[at] >= most:
                        break
        self._at = best
        return lengths[best]

    def take(self, most: int) -> tuple[int, int]:
        """Of the stretch chosen: the first id, and how many follow each other; at most `most`."""
        firsts, lengths, at = self._firsts, self._lengths, self._at
        first, length = firsts[at], lengths[at]
        if length > most:
            firsts[at] = first + most
            lengths[at] = length - most
            length = most
        else:
            del firsts[at], lengths[at]
        self._reached = first + length
        self.count -= length
        return first, length
