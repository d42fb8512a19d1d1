"""How near predicted latencies come, in virtual time: by workload, and from the first answer on.

Ten engines; what is predicted at the pick is compared with what the answer came to. Errors are |predicted − observed| ÷
observed. `shadow` predicts while the default configuration decides; `steering` lets latency-scorer decide by it. What
the predictions are good for shows in the TTFT of both. The same figures each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.machine import write
from benchmarks.simulated import LARGE, SMALL
from epp.config import load
from epp.plugins import Catalogue, Plugin, PluginType
from epp.types import Decision, Outcome, Request
from scorers.latency_predictor import Prediction
from sim.picker import rules
from sim.run import Load
from sim.simulation import Result, Scene, simulate
from sim.types import EngineSettings
from sim.workload import Chat

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
SHADOW = f"""{HEAD}
plugins:
- {{type: predicted-latency-producer, parameters: {{streamingMode: true}}}}
- {{type: latency-scorer}}
- {{type: queue-scorer}}
- {{type: kv-cache-utilization-scorer}}
- {{type: prefix-cache-scorer}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: latency-scorer, weight: 0}}
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
"""
STEERING = f"""{HEAD}
plugins:
- {{type: predicted-latency-producer, parameters: {{streamingMode: true}}}}
- {{type: latency-scorer}}
schedulingProfiles:
- {{name: default, plugins: [{{pluginRef: latency-scorer, weight: 1}}]}}
"""
WORKLOADS = {
    "chat, 30/s": (LARGE, Load(requests=8000, per_s=30.0)),
    "chat, 60/s": (LARGE, Load(requests=12000, per_s=60.0)),
    "chat in bursts, 60/s": (LARGE, Load(requests=12000, per_s=60.0, variation=3.0)),
    "agents: 8,000 tokens shared, 10/s": (
        LARGE,
        Load(requests=5000, per_s=10.0, shape=Chat(system_prompts=40, system_tokens=8000, turns=(8, 24), think_s=1.0)),
    ),
    "6,000 tokens, nothing shared, 12/s": (LARGE, Load(requests=5000, per_s=12.0, shape=(6000, 200))),
    "512 tokens, 3/4 of the capacity": (SMALL, Load(requests=6000, per_s=22.0, shape=(512, 128))),
    "512 tokens, at the capacity": (SMALL, Load(requests=6000, per_s=28.0, shape=(512, 128))),
}
COLD_STEPS = (25, 50, 100, 200, 500, 1000, 2000)


@dataclass
class Ear:
    """Hears of every request: the times predicted and observed, in seconds, in the order of the ends."""

    under_way: dict[Request, tuple[float, float, float]] = field(default_factory=dict)
    ttft: list[tuple[float, float]] = field(default_factory=list)
    tpot: list[tuple[float, float]] = field(default_factory=list)
    told: int = 0
    """Requests for which something was predicted."""

    def picked(self, request: Request, decision: Decision) -> None:
        made = next((value for value in decision.signals.values() if isinstance(value, Prediction)), None)
        if made is not None and made.predicted_ms is not None:
            self.told += made.state == "ready"
            first, each = made.predicted_ms[:, decision.run.picked_rows[0]] / 1e3
            self.under_way[request] = float(first), float(each), decision.decided_at - request.received_at

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        first, each, before = self.under_way.pop(request, (0.0, 0.0, 0.0))
        if outcome.ttft_s is None or outcome.usage is None:
            return
        self.ttft.append((first, outcome.ttft_s - before))
        tokens = outcome.usage.completion_tokens
        if tokens > 1:
            self.tpot.append((each, (outcome.duration_s - outcome.ttft_s) / (tokens - 1)))


def errors(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of those that were predicted at all."""
    found = np.array([pair for pair in pairs if pair[0] > 0.0])
    off = np.abs(found[:, 0] - found[:, 1]) / found[:, 1]
    p50, p90, p99 = np.quantile(off, (0.5, 0.9, 0.99))
    figures = {"n": len(found), "mape": float(off.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}
    return {name: round(value, 4) for name, value in figures.items()}


def heard(text: str, scene: Scene, load_: Load) -> tuple[Ear, Result]:
    """A simulation with a configuration's text, listened to."""
    built = load(text, catalogue=Catalogue.installed())
    ear = Ear()
    kind = PluginType("ear", ("hook",), Ear, (), "benchmarks")
    listening = rules(built.setup, [*built.hooks, Plugin("ear", kind, ear, {})])
    return ear, simulate(listening, scene, load_.arrivals())


def cold_start(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Mean error of the answers up to each of COLD_STEPS since the one before; predicted or not yet told."""
    told = {}
    for low, high in zip((0, *COLD_STEPS), COLD_STEPS, strict=False):
        some = [pair for pair in pairs[low:high] if pair[0] > 0.0]
        if some:
            told[str(high)] = errors(some)["mape"]
    return told


def figures(engine: EngineSettings, load_: Load) -> dict[str, object]:
    scene = Scene(engines=10, engine=engine)
    shadow, by_default = heard(SHADOW, scene, load_)
    steering, by_prediction = heard(STEERING, scene, load_)
    if by_default.flaws or by_prediction.flaws:
        raise RuntimeError(f"a plug-in failed: {by_default.flaws} {by_prediction.flaws}")
    return {
        "shadow": {"ttft": errors(shadow.ttft), "tpot": errors(shadow.tpot), "told": shadow.told},
        "steering": {"ttft": errors(steering.ttft), "tpot": errors(steering.tpot), "told": steering.told},
        "cold_start_ttft": cold_start(shadow.ttft),
        "cold_start_tpot": cold_start(shadow.tpot),
        "ttft_s_default": by_default.figures.ttft._asdict(),
        "ttft_s_latency_scorer": by_prediction.figures.ttft._asdict(),
    }


def main() -> None:
    found = {name: figures(*workload) for name, workload in WORKLOADS.items()}
    print(write("latency_accuracy", {"what": "errors of predicted latencies, in virtual time", "workloads": found}))
    for name, each in found.items():
        print(name)
        for what, told in each.items():
            print(f"  {what}: {told}")


if __name__ == "__main__":
    main()
