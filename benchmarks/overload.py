"""Three times more requests than the engines can take, through a real Envoy: who is served, who is refused, and after.

`python -m benchmarks.overload` sends critical requests at half of what the engines can do, all the time, and in the
middle sheddable ones on top of it until it is three times as much as fits; then only the critical ones again. It writes
results/overload.json and, with `matplotlib`, docs/images/flow-control-overload.svg. Takes a minute and a half. `--off`
runs the same without the gate flowControl, for comparison (nothing is written).
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import aiohttp

from benchmarks.machine import write
from tests.e2e import envoy
from tests.e2e.bootstrap import Setup
from tests.e2e.processes import Picker, endpoints_file, engines, picker

ENGINES, SEATS = 3, 5
TOKENS, TOKEN_MS, FIRST_MS = 25, 20, 100
PER_SECOND = ENGINES * SEATS / ((FIRST_MS + (TOKENS - 1) * TOKEN_MS) / 1000.0)
"""Requests that the engines can finish in a second."""
CRITICAL, OVERLOAD = 0.5, 3.0
"""Parts of that: the critical ones all the time, and all together in the middle."""
CALM_S, HIGH_S, AFTER_S = 15.0, 30.0, 15.0
PATIENCE_S = 30.0
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "flow-control-overload.svg"
CONFIG = Path(__file__).parents[1] / "config" / "flow-control.yaml"
OBJECTIVES = """
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceObjective
metadata: {name: batch}
spec: {priority: -1}
"""


@dataclass(frozen=True)
class Seen:
    """What one request met."""

    sheddable: bool
    at_s: float
    status: int
    reason: str = ""
    ttft_ms: float = 0.0
    took_s: float = 0.0


class Client:
    """Sends requests at fixed times, whether or not earlier ones are answered."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._url = f"http://127.0.0.1:{port}/v1/completions"
        self._began = time.monotonic()
        self.seen: list[Seen] = []

    async def send(self, per_second: float, begin_s: float, end_s: float, *, sheddable: bool) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(int(per_second * (end_s - begin_s))):
                at_s = begin_s + number / per_second
                await asyncio.sleep(max(0.0, self._began + at_s - time.monotonic()))
                group.create_task(self._one(number, at_s, sheddable=sheddable))

    async def _one(self, number: int, at_s: float, *, sheddable: bool) -> None:
        headers = {"x-llm-d-inference-objective": "batch"} if sheddable else {}
        prompt = f"{'batch' if sheddable else 'chat'} {number}: what is new?"
        body = {"model": "tiny", "prompt": prompt, "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
        sent = time.monotonic()
        ttft_ms = 0.0
        async with self._session.post(self._url, json=body, headers=headers) as answer:
            async for _ in answer.content.iter_any():
                ttft_ms = ttft_ms or (time.monotonic() - sent) * 1000.0
            reason = answer.headers.get("x-llm-d-request-dropped-reason", "")
            took_s = time.monotonic() - sent
            self.seen.append(Seen(sheddable, at_s, answer.status, reason, ttft_ms, took_s))


@dataclass(frozen=True)
class Sample:
    """The picker at one moment."""

    at_s: float
    queued: float
    saturation: float


async def watch(picker: Picker, began: float, samples: list[Sample]) -> None:
    """Until cancelled."""
    while True:
        page = await asyncio.to_thread(picker.get, "/metrics")
        samples.append(Sample(time.monotonic() - began, *_of(page)))
        await asyncio.sleep(0.5)


def _of(page: str) -> tuple[float, float]:
    queued = saturation = 0.0
    for line in page.splitlines():
        if line.startswith("llm_d_epp_flow_control_queue_size{"):
            queued += float(line.rpartition(" ")[2])
        elif line.startswith("llm_d_epp_flow_control_pool_saturation{") and 'stage="effective"' in line:
            saturation = float(line.rpartition(" ")[2])
    return queued, saturation


async def run(port: int, picker: Picker) -> tuple[list[Seen], list[Sample]]:
    high_end = CALM_S + HIGH_S
    waits = aiohttp.ClientTimeout(total=PATIENCE_S + 60.0)
    connections = aiohttp.TCPConnector(limit=0)
    samples: list[Sample] = []
    async with aiohttp.ClientSession(connector=connections, timeout=waits) as session:
        client = Client(session, port)
        watching = asyncio.create_task(watch(picker, time.monotonic(), samples))
        critical = client.send(PER_SECOND * CRITICAL, 0.0, high_end + AFTER_S, sheddable=False)
        batch = client.send(PER_SECOND * (OVERLOAD - CRITICAL), CALM_S, high_end, sheddable=True)
        await asyncio.gather(critical, batch)
        watching.cancel()
    return client.seen, samples


def figures(seen: Sequence[Seen]) -> dict[str, object]:
    """What the page tells."""
    phases = {"calm": (2.0, CALM_S), "overload": (CALM_S + 2.0, CALM_S + HIGH_S), "after": (CALM_S + HIGH_S + 3.0, 1e9)}
    critical = [one for one in seen if not one.sheddable]
    batch = [one for one in seen if one.sheddable]
    ttft = {
        name: [one.ttft_ms for one in critical if one.status == 200 and begin <= one.at_s < end]
        for name, (begin, end) in phases.items()
    }
    return {
        "requests_per_second_that_fit": round(PER_SECOND, 1),
        "critical": {
            "sent": len(critical),
            "served": sum(one.status == 200 for one in critical),
            **{f"ttft_p50_ms_{name}": round(median(times), 1) for name, times in ttft.items()},
            **{f"ttft_p95_ms_{name}": round(sorted(times)[int(len(times) * 0.95)], 1) for name, times in ttft.items()},
            "overload_to_calm": round(median(ttft["overload"]) / median(ttft["calm"]), 3),
            "after_to_calm": round(median(ttft["after"]) / median(ttft["calm"]), 3),
        },
        "sheddable": {
            "sent": len(batch),
            "served": sum(one.status == 200 for one in batch),
            "refused": Counter(f"{one.status} {one.reason}".strip() for one in batch if one.status != 200),
        },
    }


def _draw(seen: Sequence[Seen], samples: Sequence[Sample]) -> None:
    try:
        from benchmarks.overload_picture import draw
    except ModuleNotFoundError as missing:
        print(f"no picture: it needs {missing.name}")
        return
    draw(PICTURE, seen, samples, (CALM_S, CALM_S + HIGH_S))
    print(f"picture: {PICTURE}")


def main(arguments: Sequence[str] = ()) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = [
            "--max-num-seqs", str(SEATS),
            "--time-to-first-token", f"{FIRST_MS}ms", "--inter-token-latency", f"{TOKEN_MS}ms",
        ]  # fmt: skip
        with engines(folder, ENGINES, *flags) as running:
            endpoints = endpoints_file(folder / "endpoints.yaml", [engine.address for engine in running])
            (folder / "manifests.yaml").write_text(OBJECTIVES)
            config = (
                CONFIG.read_text().replace("/etc/epp", str(folder)).replace("# - type: priority", "- type: priority")
            )
            config = config.replace("#   parameters", "  parameters").replace("# usageLimit", "usageLimit")
            if "--off" in arguments:
                config = config.replace("- flowControl", "- flowControl=false")
            with (
                picker(folder, endpoints, "--allow-experimental-plugins", config=config) as epp,
                envoy.running(envoy.binary("newest"), Setup(picker_port=epp.grpc_port), folder) as proxy,
            ):
                seen, samples = asyncio.run(run(proxy.port, epp))
    found = figures(seen)
    print(json.dumps(found, indent=1))
    if "--off" not in arguments:
        print(f"written to {write('overload', {**found, 'samples': [asdict(sample) for sample in samples]})}")
        _draw(seen, samples)


if __name__ == "__main__":
    main(sys.argv[1:])
