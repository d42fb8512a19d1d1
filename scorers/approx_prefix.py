"""approx-prefix-cache-producer: who holds a prompt's beginning, as remembered from where prompts were sent."""

from __future__ import annotations

import sys
from typing import Annotated

from msgspec import Meta

from epp import Endpoints, column, signal
from epp.pool.prefix import DEFAULT_CAPACITY, Totals
from scorers.prefix_lookup import BLOCK_TOKENS, FLOOR_TOKENS, MOST_PROMPTS, Blocks, PrefixLookup, PromptHashes

__all__ = ["MOST_PROMPTS", "ApproxPrefixCacheProducer"]

MOST_TOKENS = 131_072
MOST_BLOCKS = 2048


@signal(
    provides={
        "cached_blocks": column(0.0),
        "prompt_blocks": 0.0,
        "prefix_block_tokens": float(FLOOR_TOKENS),
        "prompt_hashes": PromptHashes([]),
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
        self._blocks = Blocks(auto_tune=auto_tune, tokens=block_size_tokens, floor_tokens=self.floor_tokens)
        self._blocks.most_tokens = max_prefix_tokens_to_match
        self._blocks.most_blocks = max_prefix_blocks_to_match if max_prefix_blocks_to_match > 0 else sys.maxsize
        self._blocks.capacity = lru_capacity_per_server if lru_capacity_per_server > 0 else DEFAULT_CAPACITY
        self._lookup = PrefixLookup(self._blocks)
        self.measure = self._lookup.measure
        self.picked = self._lookup.picked
        self.warnings = ("blockSize is deprecated; use blockSizeTokens",) if block_size > 0 else ()

    def adopt(self, before: object) -> None:
        """Go on with the index, if its blocks are the same size as ours will be; each endpoint's room is set anew."""
        if isinstance(before, ApproxPrefixCacheProducer) and before._sizes == self._sizes:
            self._lookup.share(before._lookup)

    def state(self) -> dict[str, object]:
        return {
            "totals": self.statistics(),
            "endpoints": len(self._lookup.index.keys()),
            "autoTune": self._blocks.auto_tune,
            "blockTokens": self._blocks.tokens,
        }

    def statistics(self) -> Totals:
        """The index in numbers."""
        return self._lookup.index.totals

    @property
    def _sizes(self) -> tuple[bool, int]:
        """What decides how long blocks are: whether engines are asked, and what holds where none tells."""
        return self._blocks.auto_tune, max(self._blocks.tokens, self.floor_tokens)

    def block_tokens(self, endpoints: Endpoints) -> int:
        """Tokens a block, for these endpoints."""
        return self._blocks.size(endpoints)

    def capacity(self, endpoints: Endpoints, row: int, block_tokens: int) -> int:
        """Blocks of ours that fit into the KV cache of an endpoint."""
        return self._blocks.room(endpoints, row, block_tokens)
