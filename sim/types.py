"""The nouns of a simulated engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

SHORTEST_STEP_S = 1e-6


@dataclass(frozen=True, slots=True)
class Speed:
    """How long an engine takes.

    One step gives each decoding request a token and computes a share of the prompts: it lasts
    `inter_token_s` × load factor (if anything decodes) + `prefill_overhead_s` for each prompt begun
    + `prefill_s_per_token` × its prompt tokens. So prompts slow down everybody's decoding.
    """

    inter_token_s: float = 0.01
    time_factor_under_load: float = 1.0
    """Decode step with max_num_seqs requests ÷ with one; linear in between."""
    prefill_overhead_s: float = 0.005
    prefill_s_per_token: float = 0.0001
    """Per prompt token that the prefix cache does not hold."""
    time_to_first_token_s: float = 0.0
    """If positive, every prompt takes this long whatever its length, beside the decoding and without slowing it."""

    def __post_init__(self) -> None:
        if self.time_factor_under_load < 1:
            raise ValueError(f"time_factor_under_load {self.time_factor_under_load} must be at least 1")

    def load_factor(self, batch: int, max_num_seqs: int) -> float:
        if max_num_seqs <= 1:
            return 1.0
        return 1.0 + (self.time_factor_under_load - 1.0) * (batch - 1) / (max_num_seqs - 1)

    def decode_step_s(self, batch: int, max_num_seqs: int) -> float:
        return max(self.inter_token_s * self.load_factor(batch, max_num_seqs), SHORTEST_STEP_S)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    max_num_seqs: int = 5
    max_num_batched_tokens: int = 2048
    """Tokens of one step: one for each decoding request, the rest for prompts."""
    num_blocks: int = 1024
    block_size: int = 16
    """Tokens."""
    max_loras: int = 1
    """Different adapters that may run at once."""
    speed: Speed = Speed()

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "num_blocks", "block_size", "max_loras"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.max_num_batched_tokens <= self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} leaves no room for prompts beside "
                f"max_num_seqs {self.max_num_seqs}; raise it"
            )


class Phase(Enum):
    WAITING = "waiting"
    PREFILL = "prefill"
    DECODE = "decode"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Job:
    """One request as an engine sees it: sizes, and the hashes of its blocks instead of its text."""

    prompt_tokens: int
    output_tokens: int
    """How many it will produce; at least 1."""
    chain: Sequence[int] = ()
    """Chained hashes of the full blocks of prompt and answer, see text.chain; blocks beyond it are never shared."""
    lora: str = ""
    cut: bool = True
    """Whether output_tokens is the most it was allowed, rather than its own choice."""

    arrived_at: float | None = None
    """This and all below is written by the engine. Seconds on the caller's clock."""
    admitted_at: float | None = None
    first_token_at: float | None = None
    finished_at: float | None = None
    cached_tokens: int = 0
    """Prompt tokens found in the prefix cache when it was first admitted."""
    preemptions: int = 0
    phase: Phase = Phase.WAITING
    produced: int = 0
    """Tokens up to the step it began to decode at; Engine.produced() adds those since."""
    joined: int = 0
    """The engine's step count when it began to decode."""
    uncomputed: int = 0
    """Prompt tokens still to be computed."""
    kv_tokens: int = 0
    """Tokens whose KV it held when it was admitted last."""
    held: list[int] = field(default_factory=list)
    """The hashed blocks it holds a reference to."""
    ready_at: float = 0.0
    ends_at_step: int = -1


class Happening(Enum):
    FIRST_TOKEN = "first token"
    FINISHED = "finished"


class Event(NamedTuple):
    """What became of a job. `at` may lie before the time the engine was asked at."""

    at: float
    what: Happening
    job: Job


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine tells of itself at one moment."""

    waiting: int
    running: int
    kv_usage: float
    """Blocks in use by running requests ÷ all, 0 … 1; idle cached blocks do not count."""
    running_loras: frozenset[str]
    waiting_loras: frozenset[str]


@dataclass(slots=True)
class Counters:
    """Sums since the start."""

    prefix_queries: int = 0
    """Tokens."""
    prefix_hits: int = 0
    """Tokens."""
    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    stopped: int = 0
    """Finished of their own accord."""
    cut: int = 0
    """Finished at the most tokens they were allowed."""
    aborted: int = 0

    def count_end(self, job: Job) -> None:
        self.cut += job.cut
        self.stopped += not job.cut

    @property
    def finished(self) -> int:
        return self.stopped + self.cut

    def by_reason(self) -> dict[str, int]:
        """By vLLM's names."""
        return {"stop": self.stopped, "length": self.cut, "abort": self.aborted}
