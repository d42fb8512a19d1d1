"""Picks while pods change: 10,000 pods watched, 1,000 of them endpoints, 100 changes a second, beside a calm cluster.

The API server of the tests (a process of its own) holds pods of real size and changes them: half of the changes move
readiness from one pod to another, half touch what the picker does not read. The picker (a process, engines are not
read) is asked 200 times a second; calm and churn in turn, five rounds, in one run. Told are the picks' latency seen by
the client, the picker's CPU, and whether its endpoints are the right ones when a round ends.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.machine import cpu_s, write
from benchmarks.server import METHOD, free_port, messages, process
from tests.apiserver import ApiServer

PODS, READY, CHANGES_PER_S = 10_000, 1_000, 100
PICKS_PER_S, ROUND_S, ROUNDS = 200, 15, 5
NAMESPACE, POOLS = "llm", "inferencepools.inference.networking.k8s.io"
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]
dataLayer: {injectDefaults: false}
"""


def pod(number: int) -> dict[str, Any]:
    """A vLLM pod with as much around it as real ones have: about 5 KB."""
    variables = [{"name": f"VLLM_SETTING_{n}", "value": "x" * 40} for n in range(30)]
    mounts = [{"name": f"volume-{n}", "mountPath": f"/mnt/{n}"} for n in range(8)]
    main = {"name": "main", "image": "vllm", "args": ["--model", "/mnt/models"] * 6, "env": variables}
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady")]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"vllm-{number:05}",
            "namespace": NAMESPACE,
            "labels": {"app": "vllm", "pod-template-hash": "5d9c7b8f6", "llm-d.ai/role": "both"},
            "annotations": {f"example.com/note-{n}": "y" * 60 for n in range(6)},
        },
        "spec": {"containers": [main | {"volumeMounts": mounts}], "nodeName": f"node-{number % 300}"},
        "status": {
            "phase": "Running",
            "podIP": f"127.{1 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}",
            "conditions": [*conditions, condition(number < READY)],
        },
    }


def condition(ready: bool) -> dict[str, str]:
    return {"type": "Ready", "status": str(ready)}


class Churn:
    """Changes pods at the rate while it is on; a signal turns it on and off."""

    def __init__(self, server: ApiServer) -> None:
        self.on = False
        self.made = 0
        self._server = server
        self._chance = random.Random(0)
        self._ready, self._rest = list(range(READY)), list(range(READY, PODS))

    async def run(self) -> None:
        due = time.monotonic()
        while True:
            due += 1.0 / CHANGES_PER_S
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # It ends only where as many came as went.
            if self.on or self.made % 4:
                self._change()
                self.made += 1

    def _change(self) -> None:
        if self.made % 2:
            number, when = self._chance.choice(self._rest), {"example.com/beat": str(self.made)}
            self._server.patch("Pod", NAMESPACE, f"vllm-{number:05}", {"metadata": {"annotations": when}})
            return
        # Every other time one comes, in between one goes.
        source, target = (self._ready, self._rest) if self.made % 4 else (self._rest, self._ready)
        number = source.pop(self._chance.randrange(len(source)))
        target.append(number)
        change = {"status": {"conditions": [condition(target is self._ready)]}}
        self._server.patch("Pod", NAMESPACE, f"vllm-{number:05}", change)


async def serve(port: int) -> None:
    """The API server's process; SIGUSR1 turns the churn on and off."""
    server = ApiServer(crds=(POOLS,))
    for number in range(PODS):
        server.create(pod(number))
    spec = {"selector": {"matchLabels": {"app": "vllm"}}, "targetPorts": [{"number": 8000}]}
    meta = {"name": "pool", "namespace": NAMESPACE}
    server.create(
        {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": meta, "spec": spec}
    )
    churn = Churn(server)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(churn, "on", not churn.on))
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await server.start(port)
    changing = asyncio.create_task(churn.run())
    await ended.wait()
    changing.cancel()
    await server.stop()


@contextmanager
def picker(folder: Path, api_port: int) -> Iterator[tuple[int, int, int, float]]:
    """The picker in front of that server: pid, port, metrics port, seconds until it knew every endpoint."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        f"{{apiVersion: v1, kind: Config, clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{api_port}'}}}}],"
        "users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}], "
        "current-context: c}"
    )
    port, metrics_port = free_port(), free_port()
    flags = ["--pool-name=pool", f"--pool-namespace={NAMESPACE}", f"--config-text={CONFIG}", "--secure-serving=false"]
    flags += [f"--grpc-port={port}", f"--grpc-health-port={free_port()}", f"--metrics-port={metrics_port}"]
    flags += ["--metrics-endpoint-auth=false", "--refresh-prometheus-metrics-interval=200ms", "--drain-timeout=0"]
    os.environ["KUBECONFIG"] = str(kubeconfig)
    began = time.monotonic()
    with process([sys.executable, "-m", "epp", *flags], port) as pid:
        while endpoints(metrics_port) != READY:
            time.sleep(0.05)
        yield pid, port, metrics_port, time.monotonic() - began


def endpoints(metrics_port: int) -> int:
    """How many the picker knows."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as page:
        for line in page.read().decode().splitlines():
            if line.startswith("llm_d_epp_ready_endpoints"):
                return int(float(line.rpartition(" ")[2]))
    return -1


async def asked(port: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Picks at the rate, each a stream of its own; their latencies in ms, from the body sent to the answer."""
    head, body = messages(complete=True)[:2]
    took: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:

        async def one() -> None:
            call = channel.stream_stream(METHOD)()
            await call.write(head)
            began = time.perf_counter()
            await call.write(body)
            await call.read()
            took.append((time.perf_counter() - began) * 1e3)
            call.cancel()

        due = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(PICKS_PER_S * ROUND_S):
                due += 1.0 / PICKS_PER_S
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                tasks.create_task(one())
    return np.array(took)


def measured(pid: int, port: int) -> dict[str, float]:
    before, began = cpu_s(pid), time.monotonic()
    took = asyncio.run(asked(port))
    spent = (cpu_s(pid) - before) / (time.monotonic() - began)
    p50, p99, worst = np.percentile(took, [50, 99, 100])
    shown = {"p50_ms": p50, "p99_ms": p99, "max_ms": worst, "cores": spent}
    return {name: round(float(value), 3) for name, value in shown.items()}


def main() -> None:
    api_port = free_port()
    command = [sys.executable, "-m", "benchmarks.churn", "--server", str(api_port)]
    with (
        tempfile.TemporaryDirectory() as folder,
        process(command, api_port) as api,
        picker(Path(folder), api_port) as (pid, port, metrics_port, synced_s),
    ):
        rounds = []
        for _ in range(ROUNDS):
            calm = measured(pid, port)
            os.kill(api, signal.SIGUSR1)
            churning = measured(pid, port)
            os.kill(api, signal.SIGUSR1)
            time.sleep(1)
            rounds.append({"calm": calm, "churn": churning, "endpoints_after": endpoints(metrics_port)})
            print(rounds[-1])
    ratio = float(np.median([one["churn"]["p99_ms"] / one["calm"]["p99_ms"] for one in rounds]))
    figures = {
        "what": f"{PODS} pods watched, {READY} endpoints, {CHANGES_PER_S} changes/s, {PICKS_PER_S} picks/s",
        "picks_per_round": PICKS_PER_S * ROUND_S,
        "first_list_s": round(synced_s, 2),
        "rounds": rounds,
        "p99_ratio_churn_to_calm": round(ratio, 3),
        "extra_cores_of_churn": round(float(np.median([r["churn"]["cores"] - r["calm"]["cores"] for r in rounds])), 3),
    }
    print(write("churn", figures), f"p99 ratio {ratio:.2f}, first list {synced_s:.1f} s")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--server"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        main()
