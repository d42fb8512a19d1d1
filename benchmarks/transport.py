"""The transports beside each other in the finished picker: grpcio, our own HTTP/2 layer, and jh2 where it is installed.

Per request: h2load, four messages a stream, as benchmarks/server.py, which also tells the bare grpc.aio echo. Per piece
of a streamed response: alone, one message a time on 50 streams; and through a real Envoy beside Envoy's own CPU. What
the dialogue itself takes is measured in this process. CPU is user + system of the server process.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from benchmarks.decision import router
from benchmarks.machine import cpu_s, median_us, write
from benchmarks.pieces import FIELDS
from benchmarks.server import CONFIG, METHOD, echo, free_port, messages, process
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes
from epp.extproc.http2_limits import Budget, Limits
from epp.extproc.http2_protocol import Live, Peer
from tests.e2e import envoy
from tests.e2e.bootstrap import Setup

ROUNDS, REQUESTS, ENDPOINTS = 3, 8_000, 10
PIECE_STREAMS, PIECE_SECONDS = 50, 4.0
ENVOY_STREAMS, ENVOY_SECONDS = (20, 100, 300), 5.0
MODULES = {"grpcio": ["epp", "--transport=grpcio"], "h2": ["epp", "--transport=h2"], "jh2": ["benchmarks.jh2_face"]}
Figures = dict[str, Any]  # JSON


def transports() -> list[str]:
    return [name for name in MODULES if name != "jh2" or find_spec("jh2")]


@contextmanager
def picker(folder: Path, transport: str, engine: int, *, tls: bool) -> Iterator[tuple[int, int]]:
    """The picker over endpoints that are all the one engine; (pid, port)."""
    listed = [f"- {{name: e{n}, address: 127.0.0.1, port: {engine}}}" for n in range(1)]
    (folder / "endpoints.yaml").write_text("endpoints:\n" + "\n".join(listed) + "\n")
    (folder / "config.yaml").write_text(CONFIG.format(endpoints=folder / "endpoints.yaml"))
    port = free_port()
    flags = [f"--config-file={folder / 'config.yaml'}", f"--secure-serving={str(tls).lower()}", f"--grpc-port={port}"]
    flags += [f"--grpc-health-port={free_port()}", f"--metrics-port={free_port()}", "--drain-timeout=0"]
    with process([sys.executable, "-m", *MODULES[transport], *flags], port) as pid:
        time.sleep(2)
        yield pid, port


def loaded(pid: int, port: int, stream: Path, streams: int, *, tls: bool) -> Figures:
    """h2load: requests/s and the server's CPU per request."""
    scheme = "https" if tls else "http"
    command = ["h2load", "-n", str(REQUESTS), "-c2", "-m", str(streams), "-d", str(stream)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"{scheme}://127.0.0.1:{port}{METHOD}"]
    subprocess.run([*command[:2], "500", *command[3:]], capture_output=True, check=True)
    before = cpu_s(pid)
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    spent = cpu_s(pid) - before
    if f" {REQUESTS} succeeded" not in said:
        raise RuntimeError(f"h2load: not every request succeeded:\n{said}")
    found = re.search(r"([\d.]+) req/s", said)
    return {"requests_per_s": float(found[1]) if found else 0, "cpu_us_per_request": round(spent / REQUESTS * 1e6, 1)}


def pieces(pid: int, port: int, *, tls: bool) -> float:
    """µs of CPU per piece on 50 streams, 50 pieces/s each."""
    words = [str(port), str(PIECE_STREAMS), str(PIECE_SECONDS), *(["tls"] if tls else [])]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.pieces", *words], stdout=subprocess.PIPE, text=True
    ) as player:
        begun = player.stdout and player.stdout.readline()
        before = cpu_s(pid)
        said = player.stdout.read() if player.stdout else ""
        spent = cpu_s(pid) - before
    if begun != "begun\n" or not said.strip().isdigit():
        raise RuntimeError(f"benchmarks.pieces failed: {said}")
    return round(spent / int(said) * 1e6, 1)


def behind_envoy(folder: Path, transport: str, engine: int, streams: int) -> Figures:
    """µs per piece of picker and Envoy, TLS between them as gateways do."""
    with picker(folder, transport, engine, tls=True) as (pid, port):
        place = folder / f"envoy-{transport}-{streams}-{time.monotonic_ns()}"
        place.mkdir()
        setup = Setup(picker_port=port, picker_tls=True)
        with envoy.running(envoy.binary("newest"), setup, place) as proxy:
            words = ["--clients", str(proxy.port), str(streams), str(ENVOY_SECONDS)]
            asked = [sys.executable, "-m", "benchmarks.pieces", *words]
            with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as reader:
                assert reader.stdout is not None
                reader.stdout.readline()
                before = cpu_s(pid), cpu_s(proxy.process.pid)
                reader.stdout.readline()
                spent = cpu_s(pid) - before[0], cpu_s(proxy.process.pid) - before[1]
                count = int(reader.stdout.read())
    ours, theirs = (round(one / count * 1e6, 1) for one in spent)
    return {
        "picker_us": ours,
        "envoy_us": theirs,
        "ratio": round(ours / theirs, 3),
        "pieces_per_s": round(count / ENVOY_SECONDS),
    }


def dialogue() -> Figures:
    """µs that the dialogue itself takes, whatever carries it."""
    made, held = router(ENDPOINTS), HeldBytes(body_limit=1 << 30, total_limit=1 << 30)
    whole, begun = messages(complete=True), messages(complete=False)

    def request() -> None:
        one = Dialogue(made, held)
        for wire in whole:
            one.receive(wire)
            one.sent()
        one.close("natural")

    open_one = Dialogue(made, held)
    for wire in begun:
        open_one.receive(wire)
    piece = begun[-1]
    return {
        "request_us": round(median_us(request, n=1_000), 1),
        "piece_us": round(median_us(lambda: (open_one.receive(piece), open_one.sent()), n=5_000), 2),
    }


class Echo:
    """A call, or a dialogue, that costs nothing."""

    over = False

    def receive(self, wire: bytes) -> list[bytes]:
        return [wire]

    def sent(self) -> None:
        pass

    def ended(self) -> list[bytes]:
        return []

    def attach(self, push: object) -> None:
        pass

    def close(self, cause: object) -> None:
        pass


class Sink:
    """A socket that takes everything; and a watch that counts nothing."""

    def write(self, wire: bytes) -> None:
        pass

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def stream_opened(self) -> None:
        pass

    def stream_closed(self, seconds: float, code: str) -> None:
        pass


async def layers() -> Figures:
    """µs per piece of the HTTP/2 layers alone, without sockets and dialogues: 1 and 50 pieces a turn of the loop."""
    made: dict[str, Any] = {"h2": Peer({METHOD: Echo}, Limits(1 << 25, 1 << 25), Budget(1 << 30), Live())}
    if find_spec("jh2"):
        from benchmarks.jh2_face import Face

        made["jh2"] = Face(Echo, Sink())  # type: ignore[arg-type]
    return {name: _layer(peer) for name, peer in made.items()}


def _layer(peer: Any) -> Figures:
    peer.connection_made(Sink())
    client = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    client.increment_flow_control_window((1 << 31) - 65_536)
    message = messages(complete=False)[-1]
    wires = []
    for number in range(1, 101, 2):
        client.send_headers(number, FIELDS)
        peer.data_received(client.data_to_send())
        client.send_data(number, b"\0" + len(message).to_bytes(4, "big") + message)
        wires.append(client.data_to_send())
        peer.data_received(wires[-1])
    batch = b"".join(wires)
    one = median_us(lambda: peer.data_received(wires[7]), n=4_000)
    return {
        "one_a_turn_us": round(one, 2),
        "fifty_a_turn_us": round(median_us(lambda: peer.data_received(batch), n=100) / 50, 2),
    }


@contextmanager
def engine() -> Iterator[int]:
    port = free_port()
    with process([sys.executable, "-m", "benchmarks.pieces", "--engine", str(port)], port):
        yield port


def one_round(folder: Path, served_by: int, stream: Path) -> Figures:
    found: Figures = {}
    for tls in (False, True):
        kind = "tls" if tls else "plaintext"
        for transport in transports():
            with picker(folder, transport, served_by, tls=tls) as ours:
                row = {f"{n}_streams": loaded(*ours, stream, n, tls=tls) for n in (1, 32)}
                found[f"{transport} {kind}"] = row | {"piece_us": pieces(*ours, tls=tls)}
                print(transport, kind, found[f"{transport} {kind}"], flush=True)
    with echo() as floor:
        found["echo plaintext"] = {f"{n}_streams": loaded(*floor, stream, n, tls=False) for n in (1, 32)}
        print("echo", found["echo plaintext"], flush=True)
    return found


def median_of(rounds: list[Figures], *path: str) -> float:
    values = []
    for one in rounds:
        found: Any = one
        for key in path:
            found = found[key]
        values.append(found)
    return round(float(np.median(values)), 2)


def main() -> None:
    if "jh2" not in transports():
        print("without jh2: python -m pip install jh2 puts it beside the others")
    with tempfile.TemporaryDirectory() as name, engine() as served_by:
        folder = Path(name)
        stream = folder / "stream.bin"
        stream.write_bytes(b"".join(b"\0" + len(wire).to_bytes(4, "big") + wire for wire in messages(complete=True)))
        rounds = [one_round(folder, served_by, stream) for _ in range(ROUNDS)]
        through: Figures = {}
        for streams in ENVOY_STREAMS:
            for transport in transports():
                row = [behind_envoy(folder, transport, served_by, streams) for _ in range(2)]
                through[f"{transport} {streams} streams"] = row
                print(transport, streams, row, flush=True)
    medians = {
        row: {
            "request_us_32_streams": median_of(rounds, row, "32_streams", "cpu_us_per_request"),
            "request_us_1_stream": median_of(rounds, row, "1_streams", "cpu_us_per_request"),
        }
        | ({} if row.startswith("echo") else {"piece_us": median_of(rounds, row, "piece_us")})
        for row in rounds[0]
    }
    figures = {
        "what": f"{REQUESTS} requests x {ROUNDS} rounds on 2 connections; {PIECE_STREAMS} streams of 50 pieces/s",
        "dialogue_alone": dialogue(),
        "layer_alone": asyncio.run(layers()),
        "medians": medians,
        "rounds": rounds,
        "through_envoy_tls": through,
    }
    print(write("transport", figures), medians)


if __name__ == "__main__":
    main()
