"""The complete picker behind a real Envoy: CPU per request of both, in the same run, plaintext and TLS between them.

Chats of 2 KB, each with a prompt of its own, over ten endpoints that are all one cheap engine: as many as 64
connections take, and at a fixed rate well below, where nothing is batched and each message wakes the picker. One Envoy
thread. The picker's share is the figure: its CPU per request over Envoy's own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import write
from benchmarks.posts import posted
from benchmarks.server import CONFIG, free_port, process
from tests.e2e import envoy
from tests.e2e.bootstrap import Setup

ROUNDS, SECONDS, ENDPOINTS = 3, 5.0, 10
RATES = {"full": 0, "calm": 300}
Figures = dict[str, Any]  # JSON


@contextmanager
def engine() -> Iterator[int]:
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.posts", "--engine", str(port)], port):
        yield port


@contextmanager
def behind(folder: Path, addresses: list[tuple[str, int]], *, tls: bool) -> Iterator[tuple[int, dict[str, int]]]:
    """A picker over these endpoints behind an Envoy; Envoy's port, and the processes by name."""
    listed = [f"- {{name: e{n}, address: {host}, port: {port}}}" for n, (host, port) in enumerate(addresses)]
    (folder / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(listed) + "\n")
    (folder / "config.yaml").write_text(CONFIG.format(endpoints=folder / "endpoints.yaml"))
    port = free_port()
    flags = [f"--config-file={folder / 'config.yaml'}", f"--secure-serving={str(tls).lower()}", f"--grpc-port={port}"]
    flags += [f"--grpc-health-port={free_port()}", f"--metrics-port={free_port()}", "--drain-timeout=0"]
    place = folder / f"envoy-{port}"
    place.mkdir()
    setup = Setup(picker_port=port, picker_tls=tls)
    with (
        process([sys.executable, "-m", "epp", *flags], port) as pid,
        envoy.running(envoy.binary("newest"), setup, place) as proxy,
    ):
        yield proxy.port, {"picker": pid, "envoy": proxy.process.pid}


def one_round(folder: Path, engine_port: int, rate: float, *, tls: bool) -> Figures:
    # Ten names of one engine: ten endpoints whose address is another spelling of 127.0.0.1 would need ten listeners.
    with behind(folder, [("127.0.0.1", engine_port)] * ENDPOINTS, tls=tls) as (port, pids):
        found = posted(port, rate, SECONDS, pids)
    return found | {"ratio": round(found["picker_us"] / found["envoy_us"], 3)}


def main() -> None:
    cases = {f"{kind} {load}": (kind == "tls", rate) for kind in ("plaintext", "tls") for load, rate in RATES.items()}
    rounds: dict[str, list[Figures]] = {label: [] for label in cases}
    with tempfile.TemporaryDirectory() as name, engine() as port:
        for _ in range(ROUNDS):
            for label, (tls, rate) in cases.items():
                rounds[label].append(one_round(Path(name), port, rate, tls=tls))
                print(label, rounds[label][-1], flush=True)
    rows = {
        label: {key: round(float(np.median([one[key] for one in found])), 3) for key in found[0]} | {"rounds": found}
        for label, found in rounds.items()
    }
    what = f"chats of 2 KB for {SECONDS:g} s x {ROUNDS} rounds, {ENDPOINTS} endpoints, one Envoy thread; rates {RATES}"
    print(write("envoy", {"what": what, "envoy": envoy.version(envoy.binary("newest")), "cases": rows}))


if __name__ == "__main__":
    main()
