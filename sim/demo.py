"""The picker at work: `make demo`, or `python -m sim.demo`.

Four engines without GPUs, the picker and a real Envoy on loopback; the same chats three times, with random picks, the
default configuration and the recommended one; one table; a decision of each of the latter two explained.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import uvloop

from sim.demo_load import SECONDS, SHAPE, Question, Tally, measure, questions
from sim.demo_processes import DemoError
from sim.demo_site import BLOCK_TOKENS, BLOCKS, ENGINES, MODEL, PROMPT_TOKENS_PER_S, Site, Tree, site
from sim.demo_table import explained, telling
from sim.figures import Figures, Quantiles, seconds, table
from sim.progress import Progress

CONFIGS = ("random", "default", "recommended")
"""Those compared, in config/; the last is left running where that is asked for."""
LATE_S = 0.1
"""Requests sent so much later than due tell of a machine that has too much to do, not of the picker."""
STOPPED = 130
"""Exit code after a signal."""


@dataclass(slots=True)
class Demo:
    """The whole of it."""

    out: TextIO
    progress: Progress
    folder: Path
    """For logs and generated files."""
    seconds: float = SECONDS
    """How long requests are sent, each time."""
    port: int = 0
    """Envoy's; 0 = any."""
    keep: bool = False
    done: bool = field(default=False, init=False)
    """All has been shown."""
    _remarks: list[str] = field(default_factory=list, init=False)

    async def run(self) -> None:
        load = questions(self.seconds)
        self._say(opening(len(load), self.seconds))
        figures: dict[str, Figures] = {}
        decisions: dict[str, Mapping[str, Any] | None] = {}
        for name in CONFIGS:
            async with self._site(name) as place:
                figures[name] = await self._measured(name, place, load)
                decisions[name] = telling(await place.decisions())
                if name == CONFIGS[-1]:
                    await self._told(place, figures, decisions)
        self.progress.clear()

    async def _told(
        self, place: Site, figures: Mapping[str, Figures], decisions: Mapping[str, Mapping[str, Any] | None]
    ) -> None:
        self._say("\n".join([table(figures), *self._remarks]))
        for name in CONFIGS[1:]:
            if (decision := decisions[name]) is not None:
                self._say(f"One decision of config/{name}.yaml:\n\n{explained(decision)}")
        self.done = True
        if self.keep:
            self._say(keeping(place))
            await asyncio.Event().wait()
        self.progress.stage("ending everything …")

    @asynccontextmanager
    async def _site(self, name: str) -> AsyncIterator[Site]:
        self.progress.stage(f"{name:11} starting {ENGINES} engines, the picker and Envoy …")
        folder = self.folder / name
        folder.mkdir()
        async with site(folder, name, self.port) as place:
            yield place

    async def _measured(self, name: str, place: Site, load: Sequence[Question]) -> Figures:
        figures, tally = await measure(name, place, load, self.progress, self.seconds)
        self._remarks += [f"{name}: {remark}\n" for remark in remarks(tally, await place.decisions())]
        return figures

    def _say(self, text: str) -> None:
        self.progress.clear()
        print(text, file=self.out, flush=True)


def opening(requests: int, lasts_s: float) -> str:
    """What is about to happen."""
    turns, prompts, tokens = SHAPE.turns, SHAPE.system_prompts, SHAPE.system_tokens
    return (
        f"{ENGINES} engines ({BLOCK_TOKENS * BLOCKS:,} tokens of KV cache, {PROMPT_TOKENS_PER_S:,} prompt tokens a "
        f"second each), the picker, Envoy.\n"
        f"{requests} requests in {lasts_s:g} s: chats of {turns[0]} to {turns[1]} turns, each opened by one of "
        f"{prompts} prompts of {tokens:,} tokens.\n"
        "The same three times, with empty caches: engines picked at random, by config/default.yaml\n"
        "(upstream's default), by config/recommended.yaml.\n"
    )


def remarks(tally: Tally, decisions: Sequence[Tree]) -> list[str]:
    """What a reader of the figures must know besides them."""
    found = [f"{count} requests failed: {why}" for why, count in tally.errors.items()]
    flaws = Counter([f"{flaw['plugin']} ({flaw['rule']})" for each in decisions for flaw in each["flaws"]])
    found += [f"{count} decisions with a flaw of {by}" for by, count in flaws.items()]
    late = Quantiles.of(tally.late_s).p99
    if late > LATE_S:
        found.append(f"this machine was too busy: requests were sent up to {seconds(late)} late")
    return found


def keeping(place: Site) -> str:
    """How to try what is left running."""
    engine = next(iter(place.engines.values()))
    return "\n".join(
        [
            "Everything stays up until Ctrl-C. A request; x-epp-decision-id in its answer names the decision:\n",
            curl(place.url, "-si"),
            "\nand streamed:\n",
            curl(place.url, "-sN", ', "stream": true'),
            f"\ndecisions  {place.picker_url}/debug/decisions?limit=1",
            f"metrics    {place.picker_url}/metrics",
            f"failure    kill {engine.process.pid} ends {engine.name}: requests go to the others",
        ]
    )


def curl(url: str, flags: str, more: str = "") -> str:
    """A command to copy."""
    body = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hello"}}]{more}}}'
    return f"curl {flags} {url}/v1/chat/completions -H 'content-type: application/json' \\\n  -d '{body}'"


async def run(demo: Demo) -> int:
    """Run it, to its end or until a signal; the exit code."""
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    told: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        # A second signal must not cut short what ends the processes.
        if not told and task is not None:
            demo.progress.stage("ending everything …")
            task.cancel()
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await demo.run()
    except asyncio.CancelledError:
        demo.progress.clear()
        return 0 if demo.done else STOPPED
    except DemoError as error:
        demo.progress.clear()
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str]) -> int:
    given = _parser().parse_args(argv)
    progress = Progress(sys.stderr)
    try:
        with tempfile.TemporaryDirectory(prefix="epp-demo-") as folder:
            demo = Demo(sys.stdout, progress, Path(folder), given.seconds, given.port, given.keep)
            return uvloop.run(run(demo))
    except KeyboardInterrupt:
        return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sim.demo",
        description="Engines, the picker and Envoy under load: random, default, recommended picks.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--keep", action="store_true", help="leave it running afterwards, until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="Envoy's; 0 = any free one")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long requests are sent, each time")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
