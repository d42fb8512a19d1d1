"""A load in virtual time: `python -m sim.run --config config/random.yaml config/default.yaml --requests 100000`.

Engines, workload and clock are simulated; what decides is the picker itself, set up by an EndpointPickerConfig.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path
from random import Random

from epp.config import ConfigError, load
from epp.plugins import Catalogue
from epp.rules import Rules
from sim.figures import Row, seconds, table
from sim.picker import rules
from sim.progress import Progress
from sim.settings import parse
from sim.simulation import Result, Scene, simulate
from sim.types import EngineSettings
from sim.workload import Arrival, Chat, arrival_times, chat, plain

ENGINE = (
    "--max-num-seqs 64 --max-num-batched-tokens 4096 --kv-cache-size 8192 --max-model-len 131072 "
    "--inter-token-latency 20ms --time-factor-under-load 2 --prefill-time-per-token 50us"
)
"""An engine of some size: 64 requests at once, 131,072 tokens of KV cache, 20,000 prompt tokens a second."""
CHAT = Chat()


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked."""

    requests: int = 100_000
    duration_s: float = float("inf")
    """Requests later than this are not sent."""
    per_s: float = 300.0
    """Requests a second, on average."""
    variation: float = 1.0
    """Of the gaps between conversations: 0 = even, 1 = Poisson, more = bursts."""
    shape: Chat | tuple[int, int] = CHAT
    """Conversations, or (prompt tokens, answer tokens) of requests that have nothing in common."""
    seed: int = 0

    def arrivals(self) -> Iterator[Arrival]:
        """The same ones each time."""
        times, texts = Random(self.seed), Random(self.seed + 1)
        if isinstance(self.shape, Chat):
            begun_per_s = self.per_s / (sum(self.shape.turns) / 2)
            found = chat(texts, arrival_times(times, begun_per_s, self.variation), self.shape)
        else:
            found = plain(texts, arrival_times(times, self.per_s, self.variation), *self.shape)
        return takewhile(lambda arrival: arrival.at <= self.duration_s, islice(found, self.requests))


@dataclass(frozen=True, slots=True)
class Run:
    """A simulation and what it cost here."""

    result: Result
    cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        return self.result.figures.requests / self.cpu_s


def decided_by(text: str) -> Rules:
    """New rules from the text of an EndpointPickerConfig. Raises ConfigError."""
    built = load(text, catalogue=Catalogue.installed(), experimental=True)
    return rules(built.setup, built.hooks)


def run(text: str, scene: Scene, arrivals: Iterator[Arrival]) -> Run:
    """Simulate with a configuration's text."""
    began = time.process_time()
    result = simulate(decided_by(text), scene, arrivals)
    return Run(result, time.process_time() - began)


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        scene, asked, texts = _scene(given), _load(given), _texts(given.config)
    except ValueError as wrong:
        parser.error(str(wrong))
    progress = Progress(sys.stderr)
    try:
        runs = {name: run(text, scene, _told(name, asked, progress)) for name, text in texts.items()}
    except KeyboardInterrupt:
        return 130
    finally:
        progress.clear()
    print(shown(runs), end="")
    for name, each in runs.items():
        for flaw, count in each.result.flaws.items():
            print(f"{name}: {flaw}: {count} times", file=sys.stderr)
    return 0


def _texts(paths: Sequence[str]) -> dict[str, str]:
    """The configurations by short name, in order. ValueError if one can't be used."""
    short = len({Path(path).stem for path in paths}) == len(paths)
    texts = {}
    for path in paths:
        try:
            text = texts[Path(path).stem if short else path] = Path(path).read_text()
            decided_by(text)
        except OSError as error:
            raise ValueError(f"{path}: can't be read: {error.strerror}") from error
        except ConfigError as error:
            raise ValueError(f"{path}: {error}") from error
    return texts


def shown(runs: Mapping[str, Run]) -> str:
    """The table."""
    results = [each.result for each in runs.values()]
    more = [
        Row("queue wait p99", [result.queue_wait.p99 for result in results], seconds),
        Row("requests sent to the busiest engine", [max(result.picks) for result in results], "{:.0f}".format),
        Row("requests sent to the idlest engine", [min(result.picks) for result in results], "{:.0f}".format),
        Row("preemptions", [result.preemptions for result in results], "{:.0f}".format),
        Row("virtual time", [result.figures.lasted_s for result in results], "{:.0f} s".format),
        Row("CPU time", [each.cpu_s for each in runs.values()], "{:.1f} s".format),
        Row("requests simulated a CPU second", [each.per_cpu_s for each in runs.values()], "{:.0f}".format),
    ]
    return table({name: each.result.figures for name, each in runs.items()}, more)


def _told(name: str, asked: Load, progress: Progress) -> Iterator[Arrival]:
    """The load, telling how far it has come."""
    for number, arrival in enumerate(asked.arrivals()):
        progress.step(f"{name}: {number:,} requests, {arrival.at:,.0f} s of virtual time")
        yield arrival


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.run",
        description="Sends a made-up load through the picker to made-up engines, in virtual time.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _add_scene(parser.add_argument_group("picker and engines"))
    _add_load(parser.add_argument_group("load"))
    return parser


def _add_scene(group: argparse._ArgumentGroup) -> None:
    add, scene = group.add_argument, Scene()
    add("--config", nargs="+", default=["config/default.yaml"], help="EndpointPickerConfigs, a column each")
    add("--engines", type=int, default=scene.engines, help="how many")
    add("--engine", default=ENGINE, metavar="FLAGS", help="each engine's, as python -m sim.server takes them")
    add("--failing", type=int, default=0, help="so many engines answer 500 at once to everything")
    add("--reading-interval", type=float, default=scene.reading_interval_s, metavar="S", help="between two readings")
    add("--reading-delay", type=float, default=scene.reading_delay_s, metavar="S", help="until one reaches the picker")
    add("--readings-only", action="store_true", help="the picker does not count what it sent itself")


def _add_load(group: argparse._ArgumentGroup) -> None:
    add, load, shape = group.add_argument, Load(), CHAT
    add("--requests", type=int, default=load.requests, help="how many at most")
    add("--duration", type=float, default=load.duration_s, metavar="S", help="virtual seconds they come in at most")
    add("--rate", type=float, default=load.per_s, help="requests a second")
    add("--variation", type=float, default=load.variation, help="of the gaps: 0 even, 1 Poisson, more: bursts")
    add("--plain", type=_span, metavar="PROMPT-ANSWER", help="tokens of requests that share nothing, instead of chats")
    add("--system-prompts", type=int, default=shape.system_prompts, help="how many different ones")
    add("--system-tokens", type=int, default=shape.system_tokens, help="tokens of each")
    add("--zipf", type=float, default=shape.zipf, help="how uneven their popularity is; 0 = even")
    add("--question-tokens", type=_span, default="16-128", metavar="LOW-HIGH", help="tokens of a question")
    add("--answer-tokens", type=_span, default="32-256", metavar="LOW-HIGH", help="tokens of an answer")
    add("--turns", type=_span, default="1-8", metavar="LOW-HIGH", help="of a conversation")
    add("--think", type=float, default=shape.think_s, metavar="S", help="mean time from an answer to the next question")
    add("--seed", type=int, default=0, help="of all chance")


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    if not (low.isdigit() and (high or low).isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number nor two as in 16-128")
    return int(low), int(high or low)


def _scene(given: argparse.Namespace) -> Scene:
    return Scene(
        engines=given.engines,
        engine=_engine(given.engine),
        reading_interval_s=given.reading_interval,
        reading_delay_s=given.reading_delay,
        readings_only=given.readings_only,
        failing=given.failing,
        seed=given.seed,
    )


def _engine(flags: str) -> EngineSettings:
    return parse(["--model", "simulated", *shlex.split(flags)]).engine


def _load(given: argparse.Namespace) -> Load:
    shape = Chat(
        system_prompts=given.system_prompts,
        zipf=given.zipf,
        system_tokens=given.system_tokens,
        question_tokens=given.question_tokens,
        answer_tokens=given.answer_tokens,
        turns=given.turns,
        think_s=given.think,
    )
    return Load(
        requests=given.requests,
        duration_s=given.duration,
        per_s=given.rate,
        variation=given.variation,
        shape=given.plain or shape,
        seed=given.seed,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
