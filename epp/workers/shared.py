"""How many bytes of bodies all edges hold, in memory they share: the limit is one, whoever holds.

Each edge writes its own eight bytes and reads the others': no lock, and at worst two edges that take in the same moment
go over the limit by one piece each. The memory is a memfd: /dev/shm is small in some pods, and disks may be read-only.
"""

from __future__ import annotations

import mmap
import os

SLOT_BYTES = 8


class SharedCounts:
    """A number for each edge, seen by all who have the memfd."""

    def __init__(self, fd: int, slots: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, slots * SLOT_BYTES)
        self._counts = memoryview(self._memory).cast("q")

    @classmethod
    def made(cls, slots: int) -> SharedCounts:
        fd = os.memfd_create("held", os.MFD_CLOEXEC)
        os.ftruncate(fd, slots * SLOT_BYTES)
        return cls(fd, slots)

    @property
    def sum(self) -> int:
        return sum(self._counts)

    def __getitem__(self, slot: int) -> int:
        return self._counts[slot]

    def __setitem__(self, slot: int, count: int) -> None:
        self._counts[slot] = count


class Slot:
    """What one edge writes."""

    def __init__(self, counts: SharedCounts, number: int) -> None:
        self._counts, self._number = counts, number
        self._held = 0
        counts[number] = 0

    @property
    def elsewhere(self) -> int:
        return self._counts.sum - self._held

    def tell(self, held: int) -> None:
        self._held = held
        self._counts[self._number] = held


class Elsewhere:
    """For one that holds nothing itself."""

    def __init__(self, counts: SharedCounts) -> None:
        self._counts = counts

    @property
    def elsewhere(self) -> int:
        return self._counts.sum

    def tell(self, held: int) -> None:
        pass
