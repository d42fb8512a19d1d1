"""What reading the engines' metrics costs, and whether requests feel it: up to 1,000 endpoints with pages of 55 KB.

Endpoints are addresses in 127.0.0.0/8 on which one process serves a page recorded from vLLM. Requests come at a fixed
rate on two connections, as from Envoy, and stay open so long that every endpoint is in use; the time from a request's
first byte to its answer is what is told. Each case runs with and without scraping (an interval of a day), in turn. CPU
is user + system of the picker's process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived

from benchmarks.decision import body
from benchmarks.machine import cpu_s, write
from benchmarks.pieces import FIELDS
from benchmarks.server import CONFIG, free_port, messages, process

PAGE = Path(__file__).parents[1] / "tests" / "fixtures" / "metrics" / "vllm-0.32.0-busy.txt"
ROUNDS, SECONDS, SETTLE_S, IDLE_S = 3, 6.0, 6.0, 15.0
RATE, HOLD_S, CONNECTIONS, PROMPTS = 500, 2.4, 2, 3_000
OFF = "--refresh-metrics-interval=24h"
CASES = {
    "100 endpoints": (100, []),
    "1000 endpoints": (1000, []),
    "1000 endpoints, no budget": (1000, ["--scrape-budget=2"]),
}
Figures = dict[str, Any]  # JSON


def addresses(count: int) -> list[str]:
    return [f"127.1.{row // 250}.{row % 250 + 1}" for row in range(count)]


class Engine(asyncio.Protocol):
    """Answers every GET with the recorded page, and /count with how often it did."""

    served = 0
    page = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, wire: bytes) -> None:
        if wire.startswith(b"GET /count "):
            said = b"%d" % Engine.served
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))
            return
        Engine.served += 1
        self._transport.write(Engine.page)


async def serve(port: int) -> None:
    text = PAGE.read_bytes()
    head = b"HTTP/1.1 200 OK\r\ndate: Sat, 28 Nov 2026 01:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\n"
    Engine.page = head % len(text) + b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n" + text
    loop = asyncio.get_running_loop()
    for host in addresses(1000):
        await loop.create_server(Engine, host, port)
    server = await loop.create_server(Engine, "127.0.0.1", port)
    await server.serve_forever()


def openings() -> tuple[Iterator[bytes], bytes]:
    """The first messages of streams whose prompts have nothing in common, and the last ones of any."""
    head, request, answer, piece = messages(complete=True)
    asked = ProcessingRequest.FromString(request)
    wires = []
    for number in range(PROMPTS):
        asked.request_body.body = body(2_048, random.getrandbits(60) + number)
        wires.append(grpc_wire(head) + grpc_wire(asked.SerializeToString()))
    return itertools.cycle(wires), grpc_wire(answer) + grpc_wire(piece)


def grpc_wire(message: bytes) -> bytes:
    return struct.pack(">BL", 0, len(message)) + message


class Caller(asyncio.Protocol):
    """One connection of an Envoy: opens streams, notes how long each answer took, ends each stream after a while."""

    def __init__(self) -> None:
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._loop = asyncio.get_running_loop()
        self._next = 1
        self._asked: dict[int, float] = {}
        self._openings, self._ending = openings()
        self.took: list[float] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(1 << 28)
        transport.write(self._h2.data_to_send())

    def data_received(self, wire: bytes) -> None:
        now = time.perf_counter()
        for event in self._h2.receive_data(wire):
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if (asked := self._asked.pop(event.stream_id, None)) is not None:
                    self.took.append(now - asked)
                    self._loop.call_later(HOLD_S, self._end, event.stream_id)
        self._transport.write(self._h2.data_to_send())

    @property
    def may_ask(self) -> bool:
        """The picker's window has room; it has none for a moment where the machine is too busy to read."""
        return self._h2.outbound_flow_control_window > 8_192

    def ask(self) -> None:
        number, self._next = self._next, self._next + 2
        self._h2.send_headers(number, FIELDS)
        self._h2.send_data(number, next(self._openings))
        wire = self._h2.data_to_send()
        self._asked[number] = time.perf_counter()
        self._transport.write(wire)

    def _end(self, number: int) -> None:
        self._h2.send_data(number, self._ending, end_stream=True)
        self._transport.write(self._h2.data_to_send())


async def load(port: int, rate: float, seconds: float) -> list[float]:
    """Seconds that each answer took, those of the first SETTLE_S left out."""
    loop = asyncio.get_running_loop()
    callers = [(await loop.create_connection(Caller, "127.0.0.1", port))[1] for _ in range(CONNECTIONS)]
    began, asked, begun = time.monotonic(), 0, False
    while (now := time.monotonic() - began) < SETTLE_S + seconds:
        if now >= SETTLE_S and not begun:
            begun = True
            for caller in callers:
                caller.took.clear()
            print("begun", flush=True)
        while asked / rate < now and callers[asked % CONNECTIONS].may_ask:
            callers[asked % CONNECTIONS].ask()
            asked += 1
        await asyncio.sleep(0.001)
    return [round(took, 7) for caller in callers for took in caller.took]


@contextmanager
def engines() -> Iterator[int]:
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.scraping", "--engines", str(port)], port):
        yield port


@contextmanager
def picker(folder: Path, endpoints: int, engine: int, flags: list[str]) -> Iterator[tuple[int, int]]:
    """The picker over so many endpoints; (pid, port)."""
    listed = [f"- {{name: e{n}, address: {host}, port: {engine}}}" for n, host in enumerate(addresses(endpoints))]
    (folder / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(listed) + "\n")
    (folder / "config.yaml").write_text(CONFIG.format(endpoints=folder / "endpoints.yaml"))
    port = free_port()
    told = [f"--config-file={folder / 'config.yaml'}", "--secure-serving=false", f"--grpc-port={port}"]
    told += [f"--grpc-health-port={free_port()}", f"--metrics-port={free_port()}", "--drain-timeout=0"]
    with process([sys.executable, "-m", "epp", *told, *flags], port) as pid:
        yield pid, port


def served(engine: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{engine}/count", timeout=5) as reply:
        return int(reply.read())


def loaded(folder: Path, endpoints: int, engine: int, flags: list[str]) -> Figures:
    """The picker under load: its CPU, the scrapes it made, and how long answers took."""
    with picker(folder, endpoints, engine, flags) as (pid, port):
        words = [sys.executable, "-m", "benchmarks.scraping", "--load", str(port)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as caller:
            assert caller.stdout is not None
            caller.stdout.readline()
            before = cpu_s(pid), served(engine), time.monotonic()
            said = caller.stdout.read()
            seconds = time.monotonic() - before[2]
            spent, scrapes = cpu_s(pid) - before[0], served(engine) - before[1]
    took = np.array(json.loads(said)) * 1e3
    return {
        "requests": len(took),
        "scrapes_per_s": round(scrapes / seconds, 1),
        "cores": round(spent / seconds, 4),
        "p50_ms": round(float(np.percentile(took, 50)), 3),
        "p99_ms": round(float(np.percentile(took, 99)), 3),
        "p999_ms": round(float(np.percentile(took, 99.9)), 3),
    }


def idle(folder: Path, endpoints: int, engine: int, flags: list[str]) -> Figures:
    """A picker that nobody asks anything."""
    with picker(folder, endpoints, engine, flags) as (pid, _):
        time.sleep(SETTLE_S)
        before = cpu_s(pid), served(engine)
        time.sleep(IDLE_S)
        spent, scrapes = cpu_s(pid) - before[0], served(engine) - before[1]
    each = scrapes / IDLE_S / endpoints
    return {"cores": round(spent / IDLE_S, 4), "scrapes_per_s_and_endpoint": round(each, 3)}


def case(folder: Path, engine: int, endpoints: int, flags: list[str]) -> Figures:
    """Rounds with scraping and without; the cost of a scrape is the difference."""
    rounds = []
    for _ in range(ROUNDS):
        one = {"with": loaded(folder, endpoints, engine, flags), "without": loaded(folder, endpoints, engine, [OFF])}
        print(endpoints, flags, one, flush=True)
        rounds.append(one)
    middle = {
        side: {key: round(float(np.median([one[side][key] for one in rounds])), 4) for key in rounds[0][side]}
        for side in rounds[0]
    }
    cores = middle["with"]["cores"] - middle["without"]["cores"]
    return middle | {
        "scraping_cores": round(cores, 4),
        "us_per_scrape": round(cores / middle["with"]["scrapes_per_s"] * 1e6, 1),
        "p99_ratio": round(middle["with"]["p99_ms"] / middle["without"]["p99_ms"], 3),
        "rounds": rounds,
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name, engines() as engine:
        folder = Path(name)
        unused = {"with": idle(folder, 100, engine, []), "without": idle(folder, 100, engine, [OFF])}
        print("idle", unused, flush=True)
        cases = {label: case(folder, engine, *asked) for label, asked in CASES.items()}
    figures = {
        "what": f"{RATE} requests/s for {SECONDS:g} s x {ROUNDS} rounds, each open for {HOLD_S} s; medians",
        "page_bytes": PAGE.stat().st_size,
        "idle_100": unused,
        "cases": cases,
    }
    print(write("scraping", figures))


if __name__ == "__main__":
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1:2] == ["--engines"]:
        uvloop.run(serve(int(sys.argv[2])))
    elif sys.argv[1:2] == ["--load"]:
        print(json.dumps(uvloop.run(load(int(sys.argv[2]), RATE, SECONDS))))
    else:
        main()
