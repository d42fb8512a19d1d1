"""inflight-load-producer: what a request will cost the endpoint it goes to."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from msgspec import Meta

from epp import Column, Endpoints, Request, column, signal
from scorers.tokens import Tokens

OUTPUT_RATIO = 1.5


@signal(
    provides={"uncached_tokens": column(0.0), "inflight_charge": None},
    chosen_by="in_flight_load_producer_name",
    by_default=True,
)
class InflightLoadProducer:
    """Estimate, per endpoint, the tokens this request adds: the prompt's uncached ones and, if asked, its output.

    `inflight_charge` is (column charged until the first piece of the answer, column charged until its end): prompt
    tokens are work until the answer begins; with an estimate of the output they stay until it ends.
    """

    def __init__(
        self,
        *,
        add_estimated_output_tokens: bool = False,
        output_ratio: Annotated[float, Meta(ge=0)] = OUTPUT_RATIO,
        max_estimated_output_tokens: Annotated[int, Meta(ge=0)] | None = None,
        prefix_match_info_producer_name: str = "",
        sync_cross_replica_state: bool = True,
    ) -> None:
        self._with_output = add_estimated_output_tokens
        self._ratio = output_ratio
        self._most_output = max_estimated_output_tokens

    def __call__(  # noqa: PLR0917 - each is a thing it reads, by name; the last three are optional
        self,
        request: Request,
        endpoints: Endpoints,
        tokens: Tokens,
        cached_blocks: Column | None = None,
        prompt_blocks: float = 0.0,
        prefix_block_tokens: float = 0.0,
    ) -> tuple[Column, tuple[Column, Column]]:
        if cached_blocks is None:
            cost = np.full(len(endpoints), float(tokens.count))
        else:
            beyond = max(0.0, tokens.count - prompt_blocks * prefix_block_tokens)
            cost = cached_blocks * -prefix_block_tokens
            cost += prompt_blocks * prefix_block_tokens + beyond
            np.maximum(cost, beyond, out=cost)
        nothing = np.zeros(len(cost))
        if not self._with_output:
            return cost, (cost, nothing)
        cost = cost + self._output(tokens.count, request.max_output_tokens)
        return cost, (nothing, cost)

    def _output(self, prompt_tokens: int, limit: int | None) -> float:
        """Tokens the answer is expected to have."""
        expected = float(int(prompt_tokens * self._ratio + 0.5))
        limits = [float(most) for most in (limit, self._most_output) if most is not None]
        return min(expected, *limits) if limits else expected
