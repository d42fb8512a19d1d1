"""The picker in virtual time: how fast that goes, and what stale readings, failing engines and caches do to a load.

`python -m benchmarks.simulated` prints tables and writes results/simulated.json; give a number to simulate so many
requests in the first part (default 50,000; a million takes minutes). All but the CPU time is the same each time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import write
from sim.figures import Quantiles
from sim.run import Load, Run, run, shown
from sim.simulation import Scene
from sim.types import EngineSettings, Speed

CONFIGS = Path(__file__).parents[1] / "config"
REQUESTS = 50_000
LARGE = EngineSettings(
    max_num_seqs=64,
    max_num_batched_tokens=4096,
    num_blocks=8192,
    speed=Speed(inter_token_s=0.02, time_factor_under_load=2.0, prefill_s_per_token=5e-5),
)
SMALL = replace(LARGE, max_num_seqs=16, max_num_batched_tokens=2048, num_blocks=4096)
TEN = Scene(engines=10, engine=SMALL)
BUSY = Load(requests=6000, per_s=22.0, shape=(512, 128))
"""Three quarters of what ten small engines can do."""


def simulated(config: str, scene: Scene, load: Load) -> Run:
    return run((CONFIGS / f"{config}.yaml").read_text(), scene, load.arrivals())


def figures(done: Run) -> Mapping[str, object]:
    found = done.result.figures
    return {
        "requests": found.requests,
        "requests_per_s": found.per_s,
        "ttft_s": _named(found.ttft),
        "queue_wait_s": _named(done.result.queue_wait),
        "hit_share": found.hit_share,
        "imbalance": found.imbalance,
        "errors": found.errors,
        "virtual_s": found.lasted_s,
        "cpu_s": done.cpu_s,
        "requests_per_cpu_s": done.per_cpu_s,
    }


def _named(times: Quantiles) -> Mapping[str, float]:
    return times._asdict()


def fleet(requests: int) -> dict[str, Run]:
    """100 engines, chats that share 200 system prompts."""
    load = Load(requests=requests)
    return {config: simulated(config, Scene(engine=LARGE), load) for config in ("random", "default")}


def staleness() -> dict[str, Run]:
    """Queue waits at three quarters of the capacity by the age of readings, with and without counting what was sent."""
    found = {}
    for interval_s in (0.2, 1.0, 2.0):
        for readings_only in (False, True):
            name = f"{interval_s:g} s {'raw' if readings_only else 'counted'}"
            scene = replace(TEN, reading_interval_s=interval_s, readings_only=readings_only)
            found[name] = simulated("default", scene, BUSY)
    return found


def failing() -> dict[str, float]:
    """Share of the requests that one of ten engines gets which answers 500 after 5 ms."""
    load = replace(BUSY, per_s=15.0)
    runs = {config: simulated(config, replace(TEN, failing=1), load).result for config in ("random", "default")}
    return {config: result.picks[0] / result.figures.requests for config, result in runs.items()}


def main(arguments: Sequence[str] = ()) -> None:
    many = fleet(int(arguments[0]) if arguments else REQUESTS)
    stale, failed = staleness(), failing()
    parts = {"fleet": many, "staleness": stale}
    measured = {part: {name: figures(done) for name, done in runs.items()} for part, runs in parts.items()}
    write("simulated", {**measured, "share_of_a_failing_engine": failed})
    told = [f"{config} {share:.1%}" for config, share in failed.items()]
    sys.stdout.write(f"{shown(many)}\n{shown(stale)}\none of ten fails after 5 ms and gets: {', '.join(told)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
