"""approx-prefix-cache-producer: who holds a prompt's beginning, as remembered from where prompts were sent."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from xxhash import xxh3_64_intdigest

from epp import Column, Decision, Endpoint, Endpoints, Request, Run, column, signal
from epp.pool.prefix import DEFAULT_CAPACITY, PrefixIndex, Totals, chain_hashes
from scorers.tokens import TOKEN_BYTES, Tokens

BLOCK_TOKENS = 16
FLOOR_TOKENS = 64
MOST_TOKENS = 131_072
MOST_BLOCKS = 2048
MOST_PROMPTS = 128
"""Of one request; further ones are not looked up, or a batch of thousands would hold everyone up."""


class PromptHashes(Struct, frozen=True):
    """The chained block hashes of a request's prompts, and what it takes to remember them at the pick."""

    chains: tuple[array[int], ...] = ()
    maker: Any = None  # the producer: each one remembers only what it hashed itself
    block_tokens: int = FLOOR_TOKENS
    endpoints: Endpoints | None = None


@signal(
    provides={
        "cached_blocks": column(0.0),
        "prompt_blocks": 0.0,
        "prefix_block_tokens": float(FLOOR_TOKENS),
        "prompt_hashes": PromptHashes(),
    },
    chosen_by="prefix_match_info_producer_name",
    by_default=True,
)
class ApproxPrefixCacheProducer:
    """Tell, per endpoint, how many leading blocks of the prompt it should hold, from the prompts sent there before.

    An endpoint's match counts its own blocks from the first without a gap. Hashes depend on the model and the cache
    salt, so that neither adapters nor tenants share blocks.
    """

    floor_tokens = FLOOR_TOKENS
    """No block is shorter: longer ones make a smaller index, and the first 64 tokens tell enough."""

    def __init__(
        self,
        *,
        auto_tune: bool = True,
        block_size_tokens: int = BLOCK_TOKENS,
        block_size: int = 0,
        max_prefix_tokens_to_match: Annotated[int, Meta(ge=0)] = MOST_TOKENS,
        max_prefix_blocks_to_match: int = MOST_BLOCKS,
        lru_capacity_per_server: int = DEFAULT_CAPACITY,
    ) -> None:
        if block_size > 0 and block_size_tokens == BLOCK_TOKENS:
            block_size_tokens = block_size
        if not auto_tune and block_size_tokens <= 0:
            raise ValueError(f"blockSizeTokens must be above 0 where autoTune is false; got {block_size_tokens}")
        self._auto_tune = auto_tune
        self._block_tokens = block_size_tokens
        self._most_tokens = max_prefix_tokens_to_match
        self._most_blocks = max_prefix_blocks_to_match if max_prefix_blocks_to_match > 0 else sys.maxsize
        self._capacity = lru_capacity_per_server if lru_capacity_per_server > 0 else DEFAULT_CAPACITY
        self._capacities: dict[str, int] = {}
        self._index = PrefixIndex()
        self.warnings = ("blockSize is deprecated; use blockSizeTokens",) if block_size > 0 else ()

    def __call__(
        self, request: Request, endpoints: Endpoints, tokens: Tokens
    ) -> tuple[Column, float, float, PromptHashes]:
        slots = endpoints.derive((self, "slots"), self._follow)
        size = self.block_tokens(endpoints)
        seed = xxh3_64_intdigest(f"{request.model}\0{request.cache_salt}".encode("utf-8", "surrogatepass"))
        most = self._most_tokens // size if self._most_tokens else self._most_blocks
        chains = [chain_hashes(p, seed, size * TOKEN_BYTES, most) for p in tokens.prompts[:MOST_PROMPTS]]
        cached = self._index.match(chains[0], slots) if chains else np.zeros(len(slots))
        for chain in chains[1:]:
            cached += self._index.match(chain, slots)
        hashes = PromptHashes(tuple(chains), self, size, endpoints)
        return cached, float(sum(map(len, chains))), float(size), hashes

    def picked(self, request: Request, decision: Decision) -> None:
        """Remember that the prompt will be held where it goes: by the primary endpoint and by the prefill one."""
        for value in decision.signals.values():
            if isinstance(value, PromptHashes) and value.maker is self:
                self._remember(value, decision.run)
                prefill = decision.runs.get("prefill")
                if prefill is not None and prefill is not decision.run:
                    self._remember(value, prefill)

    def adopt(self, before: object) -> None:
        """Go on with the index, if its blocks are the same size as ours will be; each endpoint's room is set anew."""
        if isinstance(before, ApproxPrefixCacheProducer) and before._sizes == self._sizes:
            # Shared, not copied: requests decided by `before` are still to be remembered.
            self._index, self._capacities = before._index, before._capacities

    def state(self) -> dict[str, object]:
        return {
            "totals": self.statistics(),
            "endpoints": len(self._index.keys()),
            "autoTune": self._auto_tune,
            "blockTokens": self._block_tokens,
        }

    def statistics(self) -> Totals:
        """The index in numbers."""
        return self._index.totals

    @property
    def _sizes(self) -> tuple[bool, int]:
        """What decides how long blocks are: whether engines are asked, and what holds where none tells."""
        return self._auto_tune, max(self._block_tokens, self.floor_tokens)

    def block_tokens(self, endpoints: Endpoints) -> int:
        """Tokens a block: the engine's (the first endpoint's, else the largest known) or as configured."""
        size = 0.0
        if self._auto_tune and len(endpoints):
            sizes = endpoints.block_tokens
            size = sizes.item(0) or float(np.maximum.reduce(sizes))
        return max(int(size) or self._block_tokens, self.floor_tokens)

    def _follow(self, records: Sequence[Endpoint]) -> npt.NDArray[np.intp]:
        """Each row's place in the index; endpoints that are gone are forgotten."""
        keys = dict.fromkeys([record.key for record in records])
        for gone in set(self._index.keys()) - keys.keys():
            self._index.remove(gone)
            self._capacities.pop(gone, None)
        return self._index.slots(keys)

    def _remember(self, hashes: PromptHashes, run: Run) -> None:
        if not run.picked or hashes.endpoints is None:
            return
        key = run.picked[0].key
        capacity = self.capacity(hashes.endpoints, run.picked_rows[0], hashes.block_tokens)
        if self._capacities.get(key) != capacity:
            self._index.set_capacity(key, capacity)
            self._capacities[key] = capacity
        for chain in hashes.chains:
            self._index.add(chain, key)

    def capacity(self, endpoints: Endpoints, row: int, block_tokens: int) -> int:
        """Blocks of ours that fit into the KV cache of an endpoint, or as configured where its size is not known."""
        blocks = endpoints.num_blocks.item(row) if self._auto_tune else 0.0
        if blocks <= 0.0:
            return self._capacity
        return max(1, int(blocks * (endpoints.block_tokens.item(row) or self._block_tokens) // block_tokens))
