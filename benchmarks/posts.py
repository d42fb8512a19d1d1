"""Completions asked for through a proxy, at a fixed rate, and an engine that costs nearly nothing.

`python -m benchmarks.posts PORT RATE SECONDS` posts a 2 KB chat RATE times a second on kept connections, or with RATE 0
as often as 64 of them allow, and prints as JSON how long each answer took; "begun" and "ended" tell when what counts
begins and ends.
`--engine PORT` answers each POST with a short completion, anything else with a page of metrics.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import deque
from typing import Any

import numpy as np
import uvloop

from benchmarks.decision import body
from benchmarks.machine import cpu_s, kernel_s
from benchmarks.server import PAGE

SETTLE_S, PROMPTS, CONNECTIONS = 1.5, 2_000, 64
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
SAID = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 20}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520},
    }
).encode()
Figures = dict[str, Any]  # JSON


class Engine(asyncio.Protocol):
    """An engine whose answer is ready."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._seen = b""

    def data_received(self, wire: bytes) -> None:
        self._seen += wire
        head, blank, rest = self._seen.partition(b"\r\n\r\n")
        if not blank or len(rest) < _length(head):
            return
        self._seen = b""
        said, kind = (SAID, b"application/json") if head.startswith(b"POST") else (PAGE.encode(), b"text/plain")
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n%s"
        self._transport.write(answer % (kind, len(said), said))


def _length(head: bytes) -> int:
    """0 where the header is missing."""
    _, found, after = head.lower().partition(b"content-length:")
    return int(after.partition(b"\r\n")[0]) if found else 0


class Client(asyncio.Protocol):
    """One kept connection with at most one request on it; it goes back to `free` when the answer is there."""

    def __init__(self, free: deque[Client], took: list[float]) -> None:
        self._free, self._took = free, took
        self._seen = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, wire: bytes) -> None:
        self._asked = time.perf_counter()
        self._transport.write(wire)

    def data_received(self, wire: bytes) -> None:
        self._seen += wire
        head, blank, rest = self._seen.partition(b"\r\n\r\n")
        if not blank or not _complete(head.lower(), rest):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"not answered: {self._seen[:300]!r}")
        self._seen = b""
        self._took.append(time.perf_counter() - self._asked)
        self._free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._free:
            self._free.remove(self)


def _complete(head: bytes, rest: bytes) -> bool:
    return rest.endswith(b"0\r\n\r\n") if b"transfer-encoding: chunked" in head else len(rest) >= _length(head)


async def load(port: int, rate: float, seconds: float) -> list[float]:
    """Seconds that each answer took."""
    wires = [HEAD % len(one) + one for one in (body(2_048, number) for number in range(PROMPTS))]
    loop = asyncio.get_running_loop()
    free: deque[Client] = deque()
    took: list[float] = []
    began, asked, made, begun = time.monotonic(), 0, 0, False
    while (now := time.monotonic() - began) < SETTLE_S + seconds:
        if now >= SETTLE_S and not begun:
            begun = True
            took.clear()
            print("begun", flush=True)
        while (not rate or asked / rate < now) and (free or made < CONNECTIONS):
            if not free:
                made += 1
                free.append((await loop.create_connection(lambda: Client(free, took), "127.0.0.1", port))[1])
            free.pop().ask(wires[asked % PROMPTS])
            asked += 1
        await asyncio.sleep(0.001)
    print("ended", flush=True)
    return took


def posted(port: int, rate: float, seconds: float, pids: dict[str, int]) -> Figures:
    """Requests through `port`, how long they took, and CPU per request of each process, the kernel's part beside."""
    words = [sys.executable, "-m", "benchmarks.posts", str(port), str(rate), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        before = {name: (cpu_s(pid), kernel_s(pid)) for name, pid in pids.items()}
        client.stdout.readline()
        spent = {name: cpu_s(pid) - before[name][0] for name, pid in pids.items()}
        within = {f"{name}_kernel": kernel_s(pid) - before[name][1] for name, pid in pids.items()}
        said = client.stdout.read()
    took = np.array(json.loads(said)) * 1e3
    found = {f"{name}_us": round(used / len(took) * 1e6, 1) for name, used in (spent | within).items()}
    times = {f"p{at:g}_ms": round(float(np.percentile(took, at)), 2) for at in (50, 99)}
    return {"requests_per_s": round(len(took) / seconds, 1), **found, **times}


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "--engine":
        uvloop.run(serve(int(sys.argv[2])))
    else:
        print(json.dumps(uvloop.run(load(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))))
