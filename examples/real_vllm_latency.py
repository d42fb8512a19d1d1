"""Predicted latencies in front of two real vLLM servers on CPU: `python -m examples.real_vllm_latency`.

Streamed chats through Envoy, latency-scorer decides, and a plug-in from a file hears what was predicted at the pick and
what the answer came to. Needs what `make real-vllm` installs. Prints, and writes benchmarks/results/latency_vllm.json.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.machine import write

from .real_vllm import _stand, say
from .real_vllm_install import VERSION, vllm_environment
from .real_vllm_parts import BIN, LOOPBACK, START_S, Picker, free_port, part
from .real_vllm_site import Site, Stand, prompt

CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: predicted-latency-producer, parameters: {streamingMode: true}}
- {type: latency-scorer}
- {type: ear}
- {type: file-discovery, parameters: {path: ENDPOINTS}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: latency-scorer, weight: 1}]}
dataLayer: {discovery: {pluginRef: file-discovery}}
"""
EAR = """\
class Ear:
    def __init__(self):
        self.under_way, self.heard = {}, []

    def picked(self, request, decision):
        row = decision.run.picked_rows[0]
        said = [float(decision.signals[name][row]) for name in ("predicted_ttft_ms", "predicted_tpot_ms")]
        self.under_way[request] = [*said, decision.decided_at - request.received_at]

    def finished(self, request, decision, outcome):
        said = self.under_way.pop(request, None)
        if said and outcome.ttft_s and outcome.usage and outcome.usage.completion_tokens > 1:
            each = (outcome.duration_s - outcome.ttft_s) / (outcome.usage.completion_tokens - 1)
            self.heard.append([*said[:2], (outcome.ttft_s - said[2]) * 1e3, each * 1e3])

    def state(self):
        return {"heard": self.heard}
"""
PER_S, LASTS_S = 4.0, 80.0


@contextmanager
def listening_picker(stand: Stand) -> Iterator[Picker]:
    """With latency-scorer, and a plug-in file that listens."""
    plugins = stand.folder / "plugins"
    plugins.mkdir()
    (plugins / "ear.py").write_text(EAR)
    endpoints = [{"name": server.name, "address": LOOPBACK, "port": server.port} for server in stand.servers]
    (stand.folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": endpoints}))
    (stand.folder / "latency.yaml").write_text(CONFIG.replace("ENDPOINTS", str(stand.folder / "endpoints.yaml")))
    page = Picker(free_port())
    command: list[str | Path] = [BIN / "epp", "--config-file", stand.folder / "latency.yaml", "--plugins-path", plugins]
    command += ["--emit-decision-id", "--metrics-endpoint-auth=false", f"--metrics-port={page.port}"]
    command += [f"--grpc-port={stand.grpc_port}", "--grpc-health-port=0"]
    with part(command, stand.folder / "epp-latency.log") as started:
        started.wait_until(lambda: page.answers("/healthz"), START_S)
        started.wait_until(lambda: page.total("llm_d_epp_ready_endpoints") == len(stand.servers), START_S)
        yield page


def load(site: Site) -> int:
    """Open loop: prompts of 30 to 900 words, a third of them asked before; 8 to 64 tokens each. How many failed."""
    chance = random.Random(1)
    with ThreadPoolExecutor(64) as pool:
        began, at, asked = time.monotonic(), 0.0, []
        while at < LASTS_S:
            time.sleep(max(0.0, began + at - time.monotonic()))
            number = chance.randrange(20) if chance.random() < 1 / 3 else 1000 + len(asked)
            words = random.Random(number).choice((30, 100, 300, 900))
            tokens = chance.randint(8, 64)
            asked.append(pool.submit(site.ask, prompt(number, words), stream=True, max_tokens=tokens))
            at += chance.expovariate(PER_S)
    return sum(one.exception() is not None for one in asked)


def errors(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    found = np.array(pairs)
    off = np.abs(found[:, 0] - found[:, 1]) / found[:, 1]
    p50, p90 = np.quantile(off, (0.5, 0.9))
    told = {"n": len(found), "mape": float(off.mean()), "p50": float(p50), "p90": float(p90)}
    return {name: round(value, 4) for name, value in told.items()}


def figures(state: dict[str, Any], failed: int) -> dict[str, object]:
    heard = state["ear"]["state"]["heard"]
    known = [row for row in heard if row[0] > 0 and row[1] > 0]
    later = known[len(known) // 2 :]
    return {
        "what": f"errors of predicted latencies, two vLLM {VERSION} servers on CPU",
        "requests_heard": len(heard),
        "failed": failed,
        "ttft_ms": {"p50": float(np.median([row[2] for row in heard]))},
        "tpot_ms": {"p50": float(np.median([row[3] for row in heard]))},
        "ttft": errors([(row[0], row[2]) for row in known]),
        "tpot": errors([(row[1], row[3]) for row in known]),
        "ttft_second_half": errors([(row[0], row[2]) for row in later]),
        "tpot_second_half": errors([(row[1], row[3]) for row in later]),
        "model": state["predicted-latency-producer"],
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="real-vllm-latency-") as name:
        venv = vllm_environment(say)
        with _stand(venv, Path(name)) as stand, listening_picker(stand) as page:
            failed = load(Site(stand.envoy, page, stand.servers))
            state = json.loads(page.get("/debug/plugins/state"))["plugins"]
    found = figures(state, failed)
    say(json.dumps(found, indent=1))
    say(str(write("latency_vllm", found)))


if __name__ == "__main__":
    main()
