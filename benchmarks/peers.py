"""The picker beside Envoy, and peers that pip installs, before the same simulated engines under the same load.

Another kind of thing: vllm-router and sglang-router are proxies, written in Rust, that the whole traffic goes through;
here Envoy is the proxy and the picker is asked by it. So each row is the whole way: latency, and CPU per request of all
processes in it. Each peer is looked for in a virtual environment of its own under PEERS (default: .venv/peers):
`python -m venv .venv/peers/vllm-router && .venv/peers/vllm-router/bin/pip install vllm-router`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.envoy import behind
from benchmarks.machine import write
from benchmarks.posts import posted
from benchmarks.server import free_port, process
from tests.e2e.processes import engines

PEERS = Path(os.environ.get("PEERS", Path(__file__).parents[1] / ".venv" / "peers"))
ROUNDS, RATE, SECONDS, ENGINES = 3, 100, 6.0, 4
FAST = ("--inter-token-latency", "1ms", "--prefill-overhead", "1ms", "--prefill-time-per-token", "1us")
Figures = dict[str, Any]  # JSON
MODULES = {"vllm-router": "vllm_router.launch_router", "sglang-router": "sglang_router.launch_router"}


@contextmanager
def peer(name: str, addresses: list[str]) -> Iterator[tuple[int, dict[str, int]]]:
    """The router before these engines, with its cache-aware policy; its port, and its process."""
    port = free_port()
    command = [str(PEERS / name / "bin" / "python"), "-m", MODULES[name], "--host", "127.0.0.1", "--port", str(port)]
    command += ["--policy", "cache_aware", "--prometheus-port", str(free_port()), "--worker-urls"]
    with process([*command, *(f"http://{address}" for address in addresses)], port) as pid:
        yield port, {"router": pid}


def versions(names: list[str]) -> dict[str, str]:
    found = {}
    for name in names:
        [place] = (PEERS / name).glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info")
        found[name] = place.name.partition("-")[2].removesuffix(".dist-info")
    return found


def measured(port: int, pids: dict[str, int]) -> Figures:
    found = posted(port, RATE, SECONDS, pids)
    return found | {"cpu_us": round(sum(found[f"{name}_us"] for name in pids), 1)}


def one_round(folder: Path, addresses: list[str], names: list[str]) -> Figures:
    found: Figures = {}
    spots = [(host, int(port)) for host, port in (address.split(":") for address in addresses)]
    with behind(folder, spots, tls=True) as ours:
        found["Envoy and the picker"] = measured(*ours)
    for name in names:
        with peer(name, addresses) as theirs:
            found[name] = measured(*theirs)
    # No proxy at all: the first engine alone, asked directly.
    found["one engine, directly"] = posted(spots[0][1], RATE / ENGINES, SECONDS, {})
    print(found, flush=True)
    return found


def main() -> None:
    names = [name for name in MODULES if (PEERS / name / "bin" / "python").exists()]
    for name in sorted(MODULES.keys() - set(names)):
        print(f"without {name}: install it as {__name__}'s docstring says")
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        folder = Path(made)
        running = stack.enter_context(engines(folder, ENGINES, *FAST, model="m"))
        addresses = [engine.address for engine in running]
        rounds = [one_round(folder, addresses, names) for _ in range(ROUNDS)]
    rows = {
        label: {key: round(float(np.median([one[label][key] for one in rounds])), 2) for key in rounds[0][label]}
        for label in rounds[0]
    }
    what = f"chats of 2 KB at {RATE}/s for {SECONDS:g} s x {ROUNDS} rounds before {ENGINES} simulated engines; medians"
    print(write("peers", {"what": what, "versions": versions(names), "rows": rows, "rounds": rounds}))


if __name__ == "__main__":
    main()
