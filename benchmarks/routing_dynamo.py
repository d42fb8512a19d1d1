"""Dynamo's KV router on the same requests, in Dynamo's own simulator: `python -m benchmarks.routing_dynamo PYTHON`.

PYTHON is the interpreter of an environment with `ai-dynamo` and `ai-dynamo-runtime` (80 MB of wheels, `--no-deps`
suffices). Its engines have a timing of their own, slowed to half to be near ours, so its milliseconds stand beside its
own round robin, not beside ours. Writes results/routing_dynamo.json; two minutes.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import write
from benchmarks.routing import REQUESTS, WORKLOADS, Workload
from sim.run import Load

TOKENS, BLOCK = 4, 16
"""Bytes of a token, tokens of a block."""
LEFT_OUT = ("one engine four times slower", "LoRA adapters")
"""Its replay has one kind of engine, and no adapters."""
REPLAY = """
import json, sys
from dynamo._core import run_mocker_trace_replay
path, blocks, mode = sys.argv[1:]
engine = {"num_gpu_blocks": int(blocks), "block_size": 16, "max_num_seqs": 16, "max_num_batched_tokens": 2048,
          "enable_prefix_caching": True, "enable_chunked_prefill": True, "speedup_ratio": 0.5}
done = run_mocker_trace_replay([path], extra_engine_args={"engine": engine}, num_workers=10, router_mode=mode,
                               trace_block_size=16)
print(json.dumps({k: v for k, v in done.summary.items() if isinstance(v, (int, float))}))
"""


def trace(path: Path, workload: Workload, per_s: float) -> None:
    """In Mooncake's format: equal prefixes have equal block ids."""
    known: dict[bytes, int] = {}
    with path.open("w") as file:
        load = Load(requests=REQUESTS, per_s=per_s, shape=workload.shape)
        for number, arrival in enumerate(load.arrivals()):
            prefix, ids = hashlib.blake2b(digest_size=8), []
            for at in range(0, len(arrival.prompt), TOKENS * BLOCK):
                prefix.update(arrival.prompt[at : at + TOKENS * BLOCK])
                ids.append(known.setdefault(prefix.digest(), len(known)))
            row = {
                "request_id": str(number),
                "timestamp": round(arrival.at * 1000, 3),
                "input_length": max(1, len(arrival.prompt) // TOKENS),
                "output_length": arrival.max_tokens,
                "hash_ids": ids,
            }
            file.write(json.dumps(row) + "\n")


def replayed(python: str, path: Path, blocks: int, mode: str) -> dict[str, float]:
    command = [python, "-c", REPLAY, str(path), str(blocks), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        name: round(found[f"{key}_ttft_ms"], 1) for name, key in (("ttft_p50_ms", "median"), ("ttft_p99_ms", "p99"))
    }


def main(arguments: Sequence[str] = ()) -> None:
    (python,) = arguments
    measured: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, workload in WORKLOADS.items():
            if name in LEFT_OUT:
                continue
            for per_s in workload.per_s:
                path = Path(folder) / "trace.jsonl"
                trace(path, workload, per_s)
                blocks = workload.scene.engine.num_blocks
                found = {mode: replayed(python, path, blocks, mode) for mode in ("round_robin", "kv_router")}
                measured.setdefault(name, {})[f"{per_s:g}"] = found
                sys.stdout.write(f"{name}, {per_s:g}/s: {found}\n")
    write("routing_dynamo", {"requests": REQUESTS, "workloads": measured})


if __name__ == "__main__":
    main(sys.argv[1:])
