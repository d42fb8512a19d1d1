"""The whole server beside a bare grpc.aio echo, plaintext and TLS, at 1 and 32 streams a connection.

As benchmarks.server, on messages recorded from Envoy: request headers, the body (2 KB) and its end, response headers,
one piece, the end. Three rounds each, picker and echo in turn. Needs h2load (Debian package nghttp2-client).
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.decision import body
from benchmarks.exchange import Script
from benchmarks.machine import write
from benchmarks.server import ENDPOINTS, echo, loaded, metrics_pages, picker

REQUESTS, ROUNDS = 5_000, 3
STREAMS = (1, 32)


def recorded() -> bytes:
    """One stream as h2load sends it."""
    script = Script()
    wires = [
        script.head, *script.body(body(2_048, 0), end=False), script.body_end, script.answer, script.piece, script.end
    ]  # fmt: skip
    return b"".join(struct.pack(">BI", 0, len(wire)) + wire for wire in wires)


def main() -> None:
    if not shutil.which("h2load"):
        print("skipped: h2load is missing; apt-get install nghttp2-client")
        return
    cases = {}
    with tempfile.TemporaryDirectory() as name, metrics_pages() as pages:
        folder = Path(name)
        stream = folder / "stream.bin"
        stream.write_bytes(recorded())
        for tls in (False, True):
            with picker(folder, pages, tls=tls) as ours, echo(tls=tls) as floor:
                for streams in STREAMS:
                    how = {"streams": streams, "scheme": "https" if tls else "http", "requests": REQUESTS}
                    rounds = [(loaded(*ours, stream, **how), loaded(*floor, stream, **how)) for _ in range(ROUNDS)]  # type: ignore[arg-type]
                    one, other = (
                        round(median([each[side]["cpu_ms_per_request"] for each in rounds]), 4) for side in (0, 1)
                    )
                    kind = f"{'TLS' if tls else 'plaintext'}, {streams} a connection"
                    cases[kind] = {"picker_ms": one, "echo_ms": other, "ratio": round(one / other, 3)}
                    print(kind, cases[kind])
    print(
        write(
            "server_cases",
            {"what": f"{REQUESTS} requests x {ROUNDS}, 2 connections, {ENDPOINTS} endpoints", "cases": cases},
        )
    )


if __name__ == "__main__":
    main()
