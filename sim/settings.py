"""Flags of the HTTP face, named as users of vLLM and of llm-d's simulator know them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import msgspec

from sim.faults import FAILURES
from sim.types import EngineSettings, Speed

_NANO = Fraction(1, 10**9)
_UNITS_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")

LATENCIES = {
    "time-to-first-token": "time_to_first_token_s",
    "inter-token-latency": "inter_token_s",
    "prefill-overhead": "prefill_overhead_s",
    "prefill-time-per-token": "prefill_s_per_token",
}
"""Flag and configuration key → field of Speed."""


def seconds(text: str) -> float:
    """Seconds of "50ms", "1m30s" or "0". ValueError otherwise."""
    if text == "0":
        return 0.0
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 50ms, 1.5s, 200us")
    return float(sum(Fraction(number) * _UNITS_NS[unit] * _NANO for number, unit in _DURATION.findall(text)))


@dataclass(frozen=True, slots=True)
class ServerSettings:
    model: str
    served_names: tuple[str, ...] = ()
    """The first is the one shown; empty = the model."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0 = any free one; engine i of several listens on port + i."""
    engines: int = 1
    max_model_len: int = 1024
    """Tokens of prompt and answer."""
    max_waiting: int = 1000
    """Beyond it 429."""
    echo: bool = False
    """Answer with the prompt's last message instead of made-up words."""
    seed: int = 0
    """Of request ids and injected failures; answers depend on the prompt alone."""
    lora_modules: Mapping[str, str] = field(default_factory=dict)
    """Adapter name → path."""
    failure_rate: float = 0.0
    """Percent of requests."""
    failure_types: tuple[str, ...] = tuple(FAILURES)
    engine: EngineSettings = field(default_factory=EngineSettings)

    def __post_init__(self) -> None:
        room = self.engine.num_blocks * self.engine.block_size
        if self.max_model_len > room:
            raise ValueError(
                f"max-model-len {self.max_model_len} exceeds the KV cache of {room} tokens; "
                "raise kv-cache-size or lower max-model-len"
            )
        if not 0 <= self.failure_rate <= 100:
            raise ValueError(f"failure-injection-rate {self.failure_rate} is not a percentage from 0 to 100")
        if self.engines < 1:
            raise ValueError(f"data-parallel-size {self.engines} must be at least 1")

    @property
    def names(self) -> tuple[str, ...]:
        return self.served_names or (self.model,)


def parse(argv: Sequence[str]) -> ServerSettings:
    """Settings of a command line; bad ones end the program with usage and status 2."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        return _settings(given)
    except ValueError as wrong:
        parser.error(str(wrong))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.server",
        description="An engine without a GPU that speaks the OpenAI API and shows vLLM's metrics.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_identity(parser)
    _add_capacity(parser)
    _add_speed(parser)
    _add_failures(parser)
    return parser


def _add_identity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="name of the model")
    add("--served-model-name", nargs="+", default=[], help="names it is served under, the first is shown")
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=8000, help="0 = any free port")
    add("--data-parallel-size", type=int, default=1, help="engines, each on a port of its own from --port on")
    add("--mode", choices=("random", "echo"), default="random", help="what to answer")
    add("--seed", type=int, default=0, help="of request ids and injected failures")
    add("--lora-modules", nargs="+", default=[], help='name=path or {"name": …, "path": …}')


def _add_capacity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    default = EngineSettings()
    add("--max-num-seqs", type=int, default=default.max_num_seqs, help="requests that run at once")
    add("--max-num-batched-tokens", type=int, default=default.max_num_batched_tokens, help="tokens of one step")
    add("--max-model-len", type=int, default=1024, help="tokens of prompt and answer")
    add("--max-waiting-queue-length", type=int, default=1000, help="beyond it 429")
    add("--kv-cache-size", type=int, default=default.num_blocks, help="KV blocks")
    add("--block-size", type=int, default=default.block_size, help="tokens of a KV block")
    add("--max-loras", type=int, default=default.max_loras, help="adapters that run at once")


def _add_speed(parser: argparse.ArgumentParser) -> None:
    # Not 0 as elsewhere: engines that take no time are never loaded, and any picker does.
    add = parser.add_argument
    add("--time-to-first-token", default="0", help="fixed, in place of the two prefill times; 0 = use those")
    add("--inter-token-latency", default="10ms", help="decode step of a single request")
    add("--prefill-overhead", default="5ms", help="for each prompt")
    add("--prefill-time-per-token", default="100us", help="for each prompt token not cached")
    add("--time-factor-under-load", type=float, default=1.0, help="decode step of a full batch ÷ that of one")


def _add_failures(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--failure-injection-rate", type=float, default=0.0, help="percent of requests that fail")
    add("--failure-types", nargs="+", choices=tuple(FAILURES), default=list(FAILURES), help="drawn evenly")


def _settings(given: argparse.Namespace) -> ServerSettings:
    latencies = {name: seconds(getattr(given, flag.replace("-", "_"))) for flag, name in LATENCIES.items()}
    return ServerSettings(
        model=given.model,
        served_names=tuple(given.served_model_name),
        host=given.host,
        port=given.port,
        engines=given.data_parallel_size,
        max_model_len=given.max_model_len,
        max_waiting=given.max_waiting_queue_length,
        echo=given.mode == "echo",
        seed=given.seed,
        lora_modules=dict([_lora(text) for text in given.lora_modules]),
        failure_rate=given.failure_injection_rate,
        failure_types=tuple(given.failure_types),
        engine=EngineSettings(
            max_num_seqs=given.max_num_seqs,
            max_num_batched_tokens=given.max_num_batched_tokens,
            num_blocks=given.kv_cache_size,
            block_size=given.block_size,
            max_loras=given.max_loras,
            speed=Speed(time_factor_under_load=given.time_factor_under_load, **latencies),
        ),
    )


class _LoraModule(msgspec.Struct):
    name: str
    path: str = ""


def _lora(text: str) -> tuple[str, str]:
    if text.startswith("{"):
        module = msgspec.json.decode(text, type=_LoraModule)
        return module.name, module.path
    name, _, path = text.partition("=")
    return name, path
