"""CPU of whole exchanges without a transport: bytes of Envoy's messages in, bytes of the answers out.

The messages are recorded from Envoy (tests/transcripts), with a chat body of the size in question. An exchange is four
messages: request headers, body, response headers, one piece that ends; `recorded_us` is the same with each end in a
message of its own, as Envoy sends it. Medians of batches, in CPU time of the thread; `apart_us` is the median of
recorded ones 3 ms after one another: what waking up for a single request costs beside the kernel.

Run from compiled modules, the same sources in Python are measured in turn with them (`in_python`).
`--against FOLDER` measures another checkout as well, compiled if it has been; `--memory` adds 300,000 requests and
what they leave behind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest

from benchmarks.decision import body, router
from benchmarks.machine import write
from epp.compiled import compiled
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes
from epp.pool.prefix import chain_hashes
from epp.route import Router
from tests.transcripts import Transcript, every

BATCH, ROUNDS = 20, 3
PIECES = 200
"""Pieces in a streamed response."""
CHUNK = 32_768
"""The largest piece in which Envoy passed long bodies on."""
SHARED_BYTES = 32 * 64 * 4
"""Thirty-two blocks of 64 tokens."""
MEMORY_REQUESTS = 300_000
APART, APART_S = 400, 0.003
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Script:
    """Messages of one client, made of Envoy's."""

    def __init__(self) -> None:
        plain, streamed = _recorded("post"), _recorded("sse")
        head = ProcessingRequest.FromString(plain[0])
        for header in head.request_headers.headers.headers:
            if header.key == ":path":
                header.raw_value = b"/v1/chat/completions"
        self.head = head.SerializeToString()
        self.answer, self.piece, self.end = plain[3:6]
        last = ProcessingRequest.FromString(self.piece)
        last.response_body.end_of_stream = True
        self.last = last.SerializeToString()
        self.stream_head, self.event = streamed[3], streamed[5]
        self.body_end = plain[2]

    @staticmethod
    def body(sent: bytes, *, end: bool) -> list[bytes]:
        """The body in the pieces Envoy would send."""
        wires = []
        for at in range(0, len(sent), CHUNK):
            message = ProcessingRequest()
            message.metadata_context.SetInParent()
            message.request_body.body = sent[at : at + CHUNK]
            message.request_body.end_of_stream = end and at + CHUNK >= len(sent)
            wires.append(message.SerializeToString())
        return wires


def _recorded(case: str) -> list[bytes]:
    newest: Transcript = list(every(case))[-1]
    return newest.from_envoy()


class Side:
    """The picker, told messages."""

    def __init__(self, endpoints: int) -> None:
        self.router: Router = router(endpoints)
        self._held = HeldBytes(body_limit=1 << 30, total_limit=1 << 30)

    def open(self, wires: list[bytes]) -> Dialogue:
        dialogue = Dialogue(self.router, self._held)
        for wire in wires:
            answers = dialogue.receive(wire)
            assert isinstance(answers, list)
            if answers:
                dialogue.sent()
        return dialogue

    def exchange(self, wires: list[bytes]) -> None:
        self.open(wires).close("client-disconnect")

    def hold_everywhere(self, script: Script, prompt: bytes) -> None:
        """Let every endpoint have got this prompt once, by way of the gateway's hint."""
        for wire in script.body(prompt, end=True):
            for record in self.router.pool.snapshot(0.0).records:
                hinted = ProcessingRequest.FromString(wire)
                told = hinted.metadata_context.filter_metadata["envoy.lb.subset_hint"]
                told["x-gateway-destination-endpoint-subset"] = record.host_port
                self.exchange([script.head, hinted.SerializeToString(), script.answer, script.last])


def batches_us(one: Callable[[], None], *, n: int, warm: int) -> float:
    """CPU of one call, in µs: the median over batches."""
    for _ in range(warm):
        one()
    spent = []
    for _ in range(max(3, n // BATCH)):
        began = time.thread_time()
        for _ in range(BATCH):
            one()
        spent.append((time.thread_time() - began) / BATCH * 1e6)
    return round(float(np.median(spent)), 2)


def _short(script: Script, endpoints: int) -> dict[str, float]:
    side, number = Side(endpoints), count()
    wires = iter([script.body(body(2_048, next(number)), end=True) for _ in range(6_000)])

    def four() -> None:
        side.exchange([script.head, *next(wires), script.answer, script.last])

    found = {"four_messages_us": batches_us(four, n=2_000, warm=500)}

    if endpoints == 10:
        repeated = script.body(body(2_048, 0), end=False)
        wires_six = [script.head, *repeated, script.body_end, script.answer, script.piece, script.end]
        found["recorded_us"] = batches_us(lambda: side.exchange(wires_six), n=2_000, warm=200)
    return found


def _shared(script: Script, endpoints: int) -> float:
    """A prompt of 32 blocks that all endpoints hold, and a question of its own."""
    side = Side(endpoints)
    prefix = "The quick brown fox jumps over the lazy dog. " * 200
    chat = json.dumps({"model": "m", "messages": [{"role": "user", "content": prefix[:SHARED_BYTES] + "%d"}]})
    side.hold_everywhere(script, (chat % 0).encode())
    wires = iter([script.body((chat % number).encode(), end=True) for number in range(3_000)])
    return batches_us(lambda: side.exchange([script.head, *next(wires), script.answer, script.last]), n=2_000, warm=500)


def _long(script: Script) -> dict[str, float]:
    side = Side(10)
    sent = iter([script.body(body(400_000, number), end=True) for number in range(160)])

    def one() -> None:
        side.exchange([script.head, *next(sent), script.answer, script.last])

    hashed = body(400_000, 7)
    return {
        "body_400k_us": batches_us(one, n=100, warm=40),
        "hash_400k_us": batches_us(lambda: _discard(chain_hashes(hashed, 1, 256, 2048)), n=200, warm=20),
    }


def _apart(script: Script) -> float:
    """An exchange that finds its code and its objects gone from the caches."""
    side, spent = Side(10), []
    wires = [script.head, *script.body(body(2_048, 0), end=False), script.body_end, script.answer, script.piece]
    for _ in range(APART):
        time.sleep(APART_S)
        began = time.thread_time()
        side.exchange([*wires, script.end])
        spent.append(time.thread_time() - began)
    return round(float(np.median(spent)) * 1e6, 2)


def _discard(_: object) -> None:
    pass


def _piece(script: Script) -> float:
    """A piece in the middle of a streamed response."""
    side = Side(10)
    opened = [script.head, *script.body(body(2_048, 0), end=True), script.stream_head]
    dialogues = iter([side.open(opened) for _ in range(200)])

    def pieces() -> None:
        dialogue = next(dialogues)
        for _ in range(PIECES):
            dialogue.receive(script.event)
            dialogue.sent()

    return round(batches_us(pieces, n=160, warm=20) / PIECES, 3)


def figures() -> dict[str, float]:
    script = Script()
    found: dict[str, float] = {}
    for endpoints in (10, 100, 1_000):
        found |= {f"{name}_{endpoints}": value for name, value in _short(script, endpoints).items()}
    few, many = _shared(script, 10), _shared(script, 1_000)
    found |= {
        "shared_prefix_us_10": few,
        "shared_prefix_us_1000": many,
        "piece_us": _piece(script),
        "apart_us": _apart(script),
    }
    return found | _long(script) | {"apart_us": _apart(script)}


def memory(requests: int) -> Iterator[tuple[int, float]]:
    """Resident MB after so many unique prompts of 8 KB."""
    script, side = Script(), Side(10)
    for number in range(requests + 1):
        if number % (requests // 30) == 0:
            yield number, round(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 1e6, 1)
        side.exchange([script.head, *script.body(body(8_192, number), end=True), script.answer, script.last])


def search_path(checkout: Path) -> str:
    """Where Python looks for the packages of a checkout: first among those that were compiled, if they were."""
    return f"{checkout / 'build' / 'compiled'}{os.pathsep}{checkout}"


def measured(path: str) -> dict[str, float]:
    """The figures of what Python finds on this path, by a process of its own."""
    # -P: else modules beside this file, such as queue and envoy, would stand in for others of their names.
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--one"]
    found = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    figures_found: dict[str, float] = json.loads(found.stdout)
    return figures_found


def in_turn(paths: dict[str, str]) -> dict[str, dict[str, float]]:
    """Each one's medians over rounds in which they take turns."""
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name, path in paths.items():
            rounds[name].append(measured(path))
    return {
        name: {key: round(float(np.median([one[key] for one in found])), 2) for key in found[0]}
        for name, found in rounds.items()
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--one", action="store_true", help="measure this checkout once and print JSON")
    options.add_argument("--against", type=Path, help="another checkout, measured in turn with this one")
    options.add_argument("--memory", action="store_true", help="also 300,000 requests with unique prompts")
    asked = options.parse_args()
    if asked.one:
        print(json.dumps(figures()))
        return
    checkout = Path(__file__).parents[1]
    paths = {"here": search_path(checkout), "in_python": str(checkout)} if compiled() else {"here": str(checkout)}
    told: dict[str, object] = dict(in_turn(paths | ({"before": search_path(asked.against)} if asked.against else {})))
    if asked.memory:
        told["resident_mb"] = {str(number): mb for number, mb in memory(MEMORY_REQUESTS)}
    print(json.dumps(told, indent=1))
    print(write("exchange", {"what": "CPU of exchanges without a transport", **told}))


if __name__ == "__main__":
    main()
