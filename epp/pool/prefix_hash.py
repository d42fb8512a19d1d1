"""Chained block hashes of a prompt: each stands for its block and all blocks before it."""

from __future__ import annotations

from array import array

from xxhash import xxh3_64_intdigest


def chain_hashes(prompt: bytes | memoryview, seed: int, block_bytes: int, max_blocks: int) -> array[int]:
    """xxh3_64 of each block, seeded with the hash of the block before it; the first with `seed` (model, salt …).

    A last partial block is hashed too; blocks after `max_blocks` are left out. Equal hashes mean equal prefixes but
    for a chance of 2⁻⁶⁴ a pair. At a few hundred bytes a block, slices of `bytes` are quicker than those of a
    `memoryview`, which in turn copies nothing. Raises ValueError for blocks without a byte.
    """
    if block_bytes < 1:
        raise ValueError(f"block_bytes is {block_bytes}; a block needs at least 1 byte")
    hashes: list[int] = []
    for start in range(0, min(len(prompt), block_bytes * max_blocks), block_bytes):
        seed = xxh3_64_intdigest(prompt[start : start + block_bytes], seed)
        hashes.append(seed)
    return array("Q", hashes)
