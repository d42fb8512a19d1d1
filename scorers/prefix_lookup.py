"""Where a prompt's beginning was sent before: what approx-prefix-cache-producer does each time, without its settings.

A module of its own since a compiled one keeps no annotations, by which settings are read.
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from epp import Column, Decision, Endpoint, Endpoints, Request, Run
from epp.pool.prefix import PrefixIndex, chain_hashes
from scorers.packing import TOKEN_BYTES

BLOCK_TOKENS: Final = 16
FLOOR_TOKENS: Final = 64
MOST_PROMPTS: Final = 128
"""Of one request; further ones are not looked up, or a batch of thousands would hold everyone up."""


@final
class PromptHashes:
    """The chained block hashes of a request's prompts, and what it takes to remember them at the pick."""

    __slots__ = ("block_tokens", "chains", "endpoints", "maker")

    def __init__(
        self,
        chains: list[array[int]],
        maker: PrefixLookup | None = None,
        block_tokens: int = FLOOR_TOKENS,
        endpoints: Endpoints | None = None,
    ) -> None:
        self.chains = chains
        self.maker = maker
        """Each one remembers only what it hashed itself."""
        self.block_tokens = block_tokens
        self.endpoints = endpoints


@final
class Blocks:
    """How prompts are cut into blocks. 0 for `most_tokens` = `most_blocks` counts instead."""

    __slots__ = ("auto_tune", "capacity", "floor_tokens", "most_blocks", "most_tokens", "tokens")

    def __init__(self, *, auto_tune: bool, tokens: int, floor_tokens: int) -> None:
        self.auto_tune = auto_tune
        self.tokens = tokens
        self.floor_tokens = floor_tokens
        self.most_tokens = 0
        self.most_blocks = 0
        self.capacity = 0
        """Blocks an endpoint has room for, where its own number is not known."""

    def size(self, endpoints: Endpoints) -> int:
        """Tokens a block: the engine's (the first endpoint's, else the largest known) or as configured."""
        size = 0.0
        if self.auto_tune and len(endpoints.records):
            sizes = endpoints.block_tokens
            size = sizes.item(0) or float(np.maximum.reduce(sizes))
        return max(int(size) or self.tokens, self.floor_tokens)

    def room(self, endpoints: Endpoints, row: int, block_tokens: int) -> int:
        """Blocks of ours that fit into the KV cache of an endpoint, or as configured where its size is not known."""
        blocks: float = endpoints.num_blocks.item(row) if self.auto_tune else 0.0
        if blocks <= 0.0:
            return self.capacity
        return max(1, int(blocks * (endpoints.block_tokens.item(row) or self.tokens) // block_tokens))


@final
class PrefixLookup:
    """An index with the rules by which it is asked and filled."""

    __slots__ = ("_blocks", "_capacities", "_slots_key", "index")

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._capacities: dict[str, int] = {}
        self._slots_key: Hashable = (self, "slots")
        self.index = PrefixIndex()

    def measure(
        self,
        request: Request,
        endpoints: Endpoints,
        tokens: Any,  # Tokens, or what a stranger's producer gives in their place
    ) -> tuple[Column, float, float, PromptHashes]:
        """Cached blocks of each endpoint, blocks of the prompts, tokens a block, and what `picked` remembers."""
        slots = endpoints.derive(self._slots_key, self._follow)
        blocks = self._blocks
        size = blocks.size(endpoints)
        seed: int = xxh3_64_intdigest(f"{request.model}\0{request.cache_salt}".encode("utf-8", "surrogatepass"))
        most = blocks.most_tokens // size if blocks.most_tokens else blocks.most_blocks
        chains: list[array[int]] = []
        count, cached = 0, None
        for prompt in tokens.prompts[:MOST_PROMPTS]:
            chain = chain_hashes(prompt, seed, size * TOKEN_BYTES, most)
            chains.append(chain)
            count += len(chain)
            held = self.index.match(chain, slots)
            cached = held if cached is None else cached + held
        if cached is None:
            cached = np.zeros(len(slots))
        return cached, float(count), float(size), PromptHashes(chains, self, size, endpoints)

    def picked(self, request: Request, decision: Decision) -> None:
        """Remember that the prompt will be held where it goes: by the primary endpoint and by the prefill one."""
        for value in decision.signals.values():
            if isinstance(value, PromptHashes) and value.maker is self:
                run = decision.run
                self._remember(value, run)
                prefill = decision.runs.get("prefill")
                if prefill is not None and prefill is not run:
                    self._remember(value, prefill)

    def share(self, before: PrefixLookup) -> None:
        """Go on with its index. Shared, not copied: requests decided by `before` are still to be remembered."""
        self.index, self._capacities = before.index, before._capacities

    def _follow(self, records: Sequence[Endpoint]) -> npt.NDArray[Any]:
        """Each row's place in the index; endpoints that are gone are forgotten."""
        keys = dict.fromkeys([record.key for record in records])
        for gone in set(self.index.keys()) - keys.keys():
            self.index.remove(gone)
            self._capacities.pop(gone, None)
        return self.index.slots(keys)

    def _remember(self, hashes: PromptHashes, run: Run) -> None:
        if not run.picked or hashes.endpoints is None:
            return
        key = run.picked[0].key
        capacity = self._blocks.room(hashes.endpoints, run.picked_rows[0], hashes.block_tokens)
        if self._capacities.get(key) != capacity:
            self.index.set_capacity(key, capacity)
            self._capacities[key] = capacity
        for chain in hashes.chains:
            self.index.add(chain, key)
