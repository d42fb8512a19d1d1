"""Where requests go, in virtual time: upstream's default, least load, chance and what we recommend, on eight workloads.

`python -m benchmarks.routing` writes results/routing.json and, from it, the tables and pictures of
docs/routing-quality.md (`python -m benchmarks.routing_page` makes those alone). About ten minutes; every figure but the
CPU time is the same each time.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.machine import write
from benchmarks.simulated import CONFIGS, SMALL, TEN
from sim.run import Load, Run, run
from sim.simulation import Scene
from sim.workload import Chat

REQUESTS = 3000
FILES = {"upstream default": "default", "least load": "least-load", "random": "random", "recommended": "recommended"}
PRICES = (1.0, 2.0, 4.0, 8.0)
LORAS = tuple(f"adapter-{number}" for number in range(20))
HOT = Chat(
    system_prompts=200, zipf=1.0, system_tokens=2048, question_tokens=(16, 128), answer_tokens=(32, 128), turns=(1, 1)
)


@dataclass(frozen=True)
class Workload:
    """What is asked of whom, at which loads."""

    shape: Chat | tuple[int, int]
    per_s: tuple[float, ...]
    """Requests a second."""
    scene: Scene = TEN
    lora: bool = False


WORKLOADS: Mapping[str, Workload] = {
    "hot system prompt": Workload(replace(HOT, system_prompts=20, zipf=1.5), (15.0, 30.0, 40.0)),
    "200 system prompts": Workload(HOT, (15.0, 30.0, 40.0)),
    "multi-turn chat": Workload(Chat(), (10.0, 20.0, 26.0)),
    "agents, long contexts": Workload(
        Chat(
            system_prompts=20, system_tokens=4096, question_tokens=(128, 1024), answer_tokens=(32, 128), turns=(4, 12),
            think_s=1.0,
        ),
        (5.0, 10.0, 14.0),
        replace(TEN, engine=replace(SMALL, num_blocks=8192)),
    ),
    "cache smaller than the working set": Workload(
        replace(HOT, system_prompts=400, zipf=0.5), (10.0, 20.0, 26.0),
        replace(TEN, engine=replace(SMALL, num_blocks=2048)),
    ),
    "one engine four times slower": Workload(Chat(), (10.0, 18.0, 22.0), replace(TEN, slow_by=4.0)),
    "LoRA adapters": Workload(
        replace(Chat(), loras=LORAS), (10.0, 16.0, 20.0), replace(TEN, engine=replace(SMALL, max_loras=4)), lora=True
    ),
    "nothing shared": Workload((512, 128), (10.0, 20.0, 26.0)),
}  # fmt: skip


def texts(workload: Workload) -> dict[str, str]:
    """The configurations compared; with adapters, those that know of adapters."""
    found = {name: (CONFIGS / f"{file}.yaml").read_text() for name, file in FILES.items()}
    if workload.lora:
        found["upstream default"] = (CONFIGS / "lora.yaml").read_text()
        found["recommended"] = (
            found["recommended"].replace("plugins:\n- type", "plugins:\n- type: lora-affinity-scorer\n- type", 1)
            + "  - {pluginRef: lora-affinity-scorer, weight: 3}\n"
        )
    return found


def priced(price: float) -> str:
    return (CONFIGS / "recommended.yaml").read_text().replace("missPrice: 4", f"missPrice: {price:g}")


def measured(text: str, workload: Workload, per_s: float, requests: int) -> dict[str, float]:
    load = Load(requests=requests, per_s=per_s, shape=workload.shape)
    done: Run = run(text, workload.scene, load.arrivals())
    if done.result.flaws:
        raise RuntimeError(f"plug-ins failed, so the figures mean nothing: {dict(done.result.flaws)}")
    found = done.result.figures
    return {
        "ttft_p50_ms": round(found.ttft.p50 * 1e3, 1),
        "ttft_p90_ms": round(found.ttft.p90 * 1e3, 1),
        "ttft_p99_ms": round(found.ttft.p99 * 1e3, 1),
        "hit_share": round(found.hit_share, 3),
        "busiest_to_mean": round(found.imbalance, 2),
    }


def compared(requests: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Workload → requests a second → configuration → figures."""
    found: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, workload in WORKLOADS.items():
        found[name] = {}
        for per_s in workload.per_s:
            began = time.monotonic()
            found[name][f"{per_s:g}"] = {
                who: measured(text, workload, per_s, requests) for who, text in texts(workload).items()
            }
            told = {who: round(each["ttft_p99_ms"]) for who, each in found[name][f"{per_s:g}"].items()}
            sys.stdout.write(f"{name}, {per_s:g}/s: p99 ms {told} ({time.monotonic() - began:.0f} s)\n")
            sys.stdout.flush()
    return found


def prices(requests: int) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Workload → requests a second → price of a miss → figures."""
    return {
        name: {
            f"{per_s:g}": {f"{price:g}": measured(priced(price), WORKLOADS[name], per_s, requests) for price in PRICES}
            for per_s in WORKLOADS[name].per_s
        }
        for name in ("200 system prompts", "multi-turn chat", "cache smaller than the working set")
    }


def main(arguments: Sequence[str] = ()) -> None:
    requests = int(arguments[0]) if arguments else REQUESTS
    found = compared(requests)
    path = write("routing", {"requests": requests, "workloads": found, "miss_price": prices(requests)})
    sys.stdout.write(f"written to {Path(path).name}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
