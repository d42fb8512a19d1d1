"""The whole server: requests/s and CPU per request under h2load, beside a bare grpc.aio echo in the same run.

Each request is one ext_proc stream with four messages recorded from Envoy's shapes: request headers, a 2 KB chat body,
response headers, one piece of body. Three rounds, picker and echo in turn; CPU is user + system of the server process.
Then the memory of open streamed responses: of both processes, and of the picker's own objects.
Needs h2load (Debian package nghttp2-client).
"""

from __future__ import annotations

import asyncio
import gc
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from aiohttp import web
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from benchmarks.decision import HEADERS, body, router
from benchmarks.machine import cpu_s, write
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
CONNECTIONS, STREAMS, REQUESTS, ROUNDS = 2, 32, 12_000, 9
SETTLE_S = 2.0
"""Until every endpoint has been read and what is only done at the start is done."""
OPEN_STREAMS = 5_000
ENDPOINTS = 10
PAGE = """\
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.3
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="20000"} 1.0
"""
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {{type: queue-scorer}}
- {{type: kv-cache-utilization-scorer}}
- {{type: prefix-cache-scorer}}
- {{type: file-discovery, parameters: {{path: {endpoints}}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: queue-scorer, weight: 2}}
  - {{pluginRef: kv-cache-utilization-scorer, weight: 2}}
  - {{pluginRef: prefix-cache-scorer, weight: 3}}
dataLayer: {{discovery: {{pluginRef: file-discovery}}}}
"""


def messages(*, complete: bool) -> list[bytes]:
    """One stream's messages; not `complete` = the response has begun and goes on."""
    head, request, answer, piece = (ProcessingRequest() for _ in range(4))
    for name, (value,) in HEADERS.items():
        head.request_headers.headers.headers.add(key=name, raw_value=value.encode())
    request.request_body.body, request.request_body.end_of_stream = body(2_048, 0), True
    for name, value in (
        (":status", "200"),
        ("content-type", "text/event-stream" if not complete else "application/json"),
    ):
        answer.response_headers.headers.headers.add(key=name, raw_value=value.encode())
    piece.response_body.body = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    piece.response_body.end_of_stream = complete
    return [message.SerializeToString() for message in (head, request, answer, piece)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def process(command: list[str], port: int) -> Iterator[int]:
    """A server process, ready on `port`; its pid."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > give_up or server.poll() is not None:
                    raise
                time.sleep(0.1)
        yield server.pid
    finally:
        server.terminate()
        server.wait(15)


@contextmanager
def picker(folder: Path, metrics_port: int, *, tls: bool = False) -> Iterator[tuple[int, int]]:
    """The picker over endpoints whose load is served on `metrics_port`; (pid, port)."""
    listed = [
        f"- {{name: e{n}, address: 127.0.0.{n + 1}, port: {metrics_port}, metricsAddress: '127.0.0.1:{metrics_port}'}}"
        for n in range(ENDPOINTS)
    ]
    (folder / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(listed) + "\n")
    (folder / "config.yaml").write_text(CONFIG.format(endpoints=folder / "endpoints.yaml"))
    port = free_port()
    flags = [f"--config-file={folder / 'config.yaml'}", f"--secure-serving={str(tls).lower()}", f"--grpc-port={port}"]
    flags += [f"--grpc-health-port={free_port()}", f"--metrics-port={free_port()}", "--drain-timeout=0"]
    with process([sys.executable, "-m", "epp", *flags], port) as pid:
        time.sleep(SETTLE_S)
        yield pid, port


@contextmanager
def echo(*, tls: bool = False) -> Iterator[tuple[int, int]]:
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.echo", str(port), "tls" if tls else ""], port) as pid:
        yield pid, port


def loaded(
    pid: int, port: int, stream: Path, *, streams: int = STREAMS, scheme: str = "http", requests: int = REQUESTS
) -> dict[str, float]:
    """h2load against a server: requests/s and its CPU per request."""
    command = ["h2load", "-n", str(requests), "-c", str(CONNECTIONS), "-m", str(streams), "-d", str(stream)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"{scheme}://127.0.0.1:{port}{METHOD}"]
    subprocess.run([*command[:2], "1000", *command[3:]], capture_output=True, check=True)
    before = cpu_s(pid)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_s(pid) - before
    found = re.search(r"([\d.]+) req/s", said)
    done = re.search(r"(\d+) succeeded", said)
    if not found or not done or int(done[1]) != requests:
        raise RuntimeError(f"h2load: not every request succeeded:\n{said}")
    return {"requests_per_s": float(found[1]), "cpu_ms_per_request": round(spent / requests * 1e3, 4)}


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def open_streams(pid: int, port: int, n: int) -> float:
    """Bytes of resident memory an open streamed response costs the whole process."""
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) for _ in "four"]
    wires = messages(complete=False)

    async def one(number: int) -> grpc.aio.StreamStreamCall[bytes, bytes]:
        call = channels[number % len(channels)].stream_stream(METHOD)()
        for wire in wires:
            await call.write(wire)
        for _ in wires:
            await call.read()
        return call

    calls = [await one(number) for number in range(500)]
    before = rss(pid)
    for start in range(0, n, 100):
        calls += await asyncio.gather(*[one(start + number) for number in range(100)])
    spent = rss(pid) - before
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close()
    return spent / n


def own_bytes(n: int = 2_000) -> float:
    """Bytes the picker's own objects take for an open streamed response, without the transport's."""
    made, held = router(ENDPOINTS), HeldBytes(body_limit=1 << 30, total_limit=1 << 30)

    def one() -> Dialogue:
        dialogue = Dialogue(made, held)
        for wire in messages(complete=False):
            dialogue.receive(wire)
        return dialogue

    # Enough to fill the ring of decisions, which does not grow with open streams.
    for _ in range(20_000):
        one().close("natural")
    kept = [one() for _ in range(100)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept += [one() for _ in range(n)]
    gc.collect()
    spent = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return spent / n


async def _page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/plain")


@contextmanager
def metrics_pages() -> Iterator[int]:
    """Something to scrape, in a process of its own."""
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.server", "--pages", str(port)], port):
        yield port


def main() -> None:
    if not shutil.which("h2load"):
        print("skipped: h2load is missing; apt-get install nghttp2-client")
        return
    with tempfile.TemporaryDirectory() as name, metrics_pages() as pages:
        folder = Path(name)
        stream = folder / "stream.bin"
        stream.write_bytes(b"".join(struct.pack(">BI", 0, len(wire)) + wire for wire in messages(complete=True)))
        with picker(folder, pages) as ours, echo() as floor:
            rounds = []
            for _ in range(ROUNDS):
                rounds.append({"picker": loaded(*ours, stream), "echo": loaded(*floor, stream)})
                print(rounds[-1])
            memory = {
                "picker_process": round(asyncio.run(open_streams(*ours, OPEN_STREAMS))),
                "echo_process": round(asyncio.run(open_streams(*floor, OPEN_STREAMS))),
            }
    memory["picker_own_objects"] = round(own_bytes())
    ratio = float(np.median([r["picker"]["cpu_ms_per_request"] / r["echo"]["cpu_ms_per_request"] for r in rounds]))
    figures = {
        "what": f"{REQUESTS} requests x {ROUNDS}, {CONNECTIONS} connections x {STREAMS} streams, {ENDPOINTS} endpoints",
        "rounds": rounds,
        "cpu_ratio_to_echo": round(ratio, 3),
        "bytes_per_open_stream": memory,
    }
    print(write("server", figures), f"ratio {ratio:.2f}", memory)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pages"]:
        served = web.Application()
        served.router.add_get("/metrics", _page)
        web.run_app(served, host="127.0.0.1", port=int(sys.argv[2]), print=None)
    else:
        main()
