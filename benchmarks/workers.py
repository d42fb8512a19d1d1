"""What `--workers 2` costs beside one process: CPU of a request where it is spent, and requests a second.

h2load with one client and with four, 32 streams each, four messages a stream of a 2 KB chat, the default scorers, no
engine behind. On two cores the load generator takes a share of what the workers could use. CPU is user + system.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import cpu_s, write
from benchmarks.server import CONFIG, METHOD, free_port, messages, metrics_pages, process

ROUNDS, REQUESTS = 3, 6_000
KINDS = {b"epp.workers.child": "edges", b"epp.cli": "decider"}


def who(parent: int) -> dict[str, list[int]]:
    """Process ids by what they are."""
    ids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    found: dict[str, list[int]] = {"parent": [parent]}
    for one in ids:
        line = Path(f"/proc/{one}/cmdline").read_bytes()
        found.setdefault(next(kind for mark, kind in KINDS.items() if mark in line), []).append(int(one))
    return found


def loaded(folder: Path, workers: int, engine: int, clients: int) -> dict[str, float]:
    """Of one picker, started for this."""
    (folder / "endpoints.yaml").write_text(f"endpoints:\n- {{name: e0, address: 127.0.0.1, port: {engine}}}\n")
    (folder / "config.yaml").write_text(CONFIG.format(endpoints=folder / "endpoints.yaml"))
    (folder / "stream").write_bytes(b"".join(len(m).to_bytes(5, "big") + m for m in messages(complete=True)))
    port = free_port()
    command = [sys.executable, "-m", "epp", f"--config-file={folder / 'config.yaml'}", "--secure-serving=false"]
    command += [f"--grpc-port={port}", f"--grpc-health-port={free_port()}", f"--metrics-port={free_port()}"]
    with process([*command, "--drain-timeout=0", f"--workers={workers}"], port) as pid:
        time.sleep(3)
        _load(port, folder / "stream", 500, clients)
        people = who(pid)
        before = {kind: sum(map(cpu_s, ids)) for kind, ids in people.items()}
        seconds = _load(port, folder / "stream", REQUESTS, clients)
        spent = {kind: (sum(map(cpu_s, ids)) - before[kind]) / REQUESTS * 1e6 for kind, ids in people.items()}
    return {**spent, "all": sum(spent.values()), "requests_per_s": REQUESTS / seconds}


def _load(port: int, stream: Path, requests: int, clients: int) -> float:
    """The seconds it took."""
    command = ["h2load", "-n", str(requests), "-c", str(clients), "-m", "32", "-d", str(stream)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://127.0.0.1:{port}{METHOD}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    failed = re.search(r"(\d+) failed", said)
    took = re.search(r"finished in ([\d.]+)(ms|s)", said)
    if failed is None or took is None or int(failed[1]):
        raise RuntimeError(said)
    return float(took[1]) / (1_000 if took[2] == "ms" else 1)


def main() -> None:
    if not shutil.which("h2load"):
        print("skipped: h2load is missing; apt-get install nghttp2-client")
        return
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder, metrics_pages() as engine:
        for _ in range(ROUNDS):
            for workers in (1, 2):
                for clients in (1, 4):
                    name = f"{workers} workers, {clients} connections"
                    found.setdefault(name, []).append(loaded(Path(folder), workers, engine, clients))
    told: dict[str, Any] = {
        name: {key: round(float(np.median([one[key] for one in rounds])), 1) for key in rounds[0]}
        for name, rounds in found.items()
    }
    print(write("workers", {"what": "µs of CPU a request by kind of process, and requests a second", **told}))


if __name__ == "__main__":
    main()
