"""The HTTP/2 listeners on real sockets, with clients that are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import grpc
import grpc.aio
import hpack
import pytest
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc

from epp.extproc.http2_server import Http2Server
from epp.extproc.http2_wire import HEADERS
from epp.extproc.http2_wire import frame as wire_frame
from epp.extproc.service import METHOD
from epp.extproc.tls import CertificateError, Certificates, Terms
from tests.apiserver.certificates import make

from . import kit
from .http2_kit import HELLO, REQUEST, frames, message
from .test_tls import A, B, Clock, write

T = TypeVar("T")
CHAT = b'{"model": "tiny", "prompt": "Once upon a time"}'
ASKED = [kit.request_headers().SerializeToString(), kit.request_body(CHAT).SerializeToString()]


class Watch:
    """What the listeners tell of their streams."""

    def __init__(self) -> None:
        self.opened = 0
        self.codes: list[str] = []

    def stream_opened(self) -> None:
        self.opened += 1

    def stream_closed(self, seconds: float, code: str) -> None:
        self.codes.append(code)


class Ready:
    def ready(self) -> bool:
        return True

    def reachable(self) -> bool:
        return True


class Served:
    """A picker behind the listeners."""

    def __init__(self, **limits: Any) -> None:
        self.world, self.watch = kit.World(), Watch()
        sizes = {"max_recv_bytes": 1 << 21, "max_send_bytes": 1 << 30, "max_waiting_bytes": 1 << 24} | limits
        self.server = Http2Server(self.world.dialogue, self.watch, Ready(), **sizes)  # type: ignore[arg-type]
        self.port = self.health_port = 0

    async def ended(self, count: int = 1) -> list[str]:
        """The codes of the streams, once `count` have ended."""
        async with asyncio.timeout(10):
            while len(self.watch.codes) < count:  # noqa: ASYNC110 - the watch is told without an event
                await asyncio.sleep(0.005)
        return self.watch.codes


@asynccontextmanager
async def serving(certificates: Certificates | None = None, **limits: Any) -> AsyncIterator[Served]:
    served = Served(**limits)
    served.port, served.health_port = await served.server.start(0, 0, certificates)
    try:
        yield served
    finally:
        await served.server.stop(0)
        assert served.watch.opened == len(served.watch.codes)
        assert (served.world.held.held, served.world.pool.ledger.requests) == (0, 0)


def run(main: Callable[[], Awaitable[T]]) -> T:
    async def within() -> T:
        async with asyncio.timeout(30):
            return await main()

    return uvloop.run(within())


def kinds(answers: list[bytes]) -> list[str | None]:
    return [ProcessingResponse.FromString(wire).WhichOneof("response") for wire in answers]


async def talk(port: int, wires: list[bytes], count: int) -> tuple[list[bytes], grpc.StatusCode]:
    """A whole call by grpc.aio: `count` answers, and how it ended."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(METHOD)()
        for wire in wires:
            await call.write(wire)
        answers = [await call.read() for _ in range(count)]
        await call.done_writing()
        return answers, await call.code()


def test_grpc_aio_talks() -> None:
    async def main() -> None:
        async with serving() as served:
            answers, code = await talk(served.port, ASKED, 2)
            assert (kinds(answers), code) == (["request_headers", "request_body"], grpc.StatusCode.OK)
            assert await served.ended() == ["OK"]

    run(main)


def test_synchronous_grpcio_talks() -> None:
    def ask(port: int) -> list[str | None]:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            return kinds(list(channel.stream_stream(METHOD)(iter(ASKED), timeout=10)))

    async def main() -> None:
        async with serving() as served:
            assert await asyncio.to_thread(ask, served.port) == ["request_headers", "request_body"]

    run(main)


def test_a_message_out_of_place_ends_its_stream() -> None:
    async def main() -> None:
        async with serving() as served:
            _, code = await talk(served.port, [b"\xff\xff"], 0)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert await served.ended() == ["InvalidArgument"]

    run(main)


def test_a_cancelled_call_is_refunded() -> None:
    async def main() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = channel.stream_stream(METHOD)()
            for wire in ASKED:
                await call.write(wire)
            await call.read()
            assert served.world.pool.ledger.requests == 1
            call.cancel()
            assert await served.ended() == ["Canceled"]
            assert served.world.pool.ledger.requests == 0

    run(main)


def test_a_deadline_ends_the_call() -> None:
    async def main() -> None:
        async with serving() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            fields = [(name, METHOD if name == ":path" else value) for name, value in REQUEST]
            block = hpack.Encoder().encode([*fields, ("grpc-timeout", "20m")])
            writer.write(HELLO + len(block).to_bytes(3, "big") + b"\x01\x04\x00\x00\x00\x01" + block)
            assert await served.ended() == ["DeadlineExceeded"]
            seen = b""
            while b"grpc-status\x014" not in seen:
                seen += await reader.read(4096)
            assert frames(seen)[-1][:3] == (1, 5, 1)
            writer.close()

    run(main)


def test_a_message_over_the_limit_is_refused() -> None:
    async def main() -> None:
        async with serving(max_recv_bytes=1_000) as served:
            _, code = await talk(served.port, [b"x" * 2_000], 0)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(main)


@pytest.mark.parametrize("port", ["port", "health_port"])
def test_health_is_told_on_both_ports(port: str) -> None:
    async def main() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{getattr(served, port)}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="liveness"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            listed = await stub.List(health_pb2.HealthListRequest())
            assert {"", "liveness", "readiness"} <= set(listed.statuses)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(health_pb2.HealthCheckRequest()).read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main)


def test_the_health_port_picks_nothing() -> None:
    async def main() -> None:
        async with serving() as served:
            _, code = await talk(served.health_port, [], 0)
            assert code is grpc.StatusCode.UNIMPLEMENTED

    run(main)


@pytest.mark.needs_debian("curl")
def test_curl_reads_health(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(message(b""))
    command = ["curl", "-sS", "--http2-prior-knowledge", "-D", "-", "-o", str(tmp_path / "body")]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", f"@{tmp_path / 'empty'}"]

    async def main() -> str:
        async with serving() as served:
            url = f"http://127.0.0.1:{served.health_port}/grpc.health.v1.Health/Check"
            ended = await asyncio.to_thread(
                subprocess.run, [*command, url], capture_output=True, text=True, timeout=20, check=True
            )
            return str(ended.stdout)

    assert re.search(r"HTTP/2 200.*grpc-status: 0", run(main), re.DOTALL)
    assert (tmp_path / "body").read_bytes() == message(b"\x08\x01")


@pytest.mark.needs_debian("nghttp2-client")
@pytest.mark.parametrize("secure", [False, True], ids=["plaintext", "TLS"])
def test_h2load_sees_no_failure(tmp_path: Path, secure: bool) -> None:
    (tmp_path / "stream").write_bytes(b"".join(map(message, ASKED)))
    command = ["h2load", "-n300", "-c3", "-m20", "-d", str(tmp_path / "stream"), "-H", "content-type: application/grpc"]

    async def main() -> str:
        async with serving(Certificates() if secure else None) as served:
            url = f"{'https' if secure else 'http'}://127.0.0.1:{served.port}{METHOD}"
            ended = await asyncio.to_thread(
                subprocess.run, [*command, url], capture_output=True, text=True, timeout=60, check=True
            )
            return str(ended.stdout)

    assert "300 succeeded, 0 failed, 0 errored" in run(main)


# ---- TLS


def shown(port: int, **terms: Any) -> tuple[bytes, str | None, str | None]:
    """The certificate a listener shows in PEM, the protocol agreed on, the TLS version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    for name, value in terms.items():
        setattr(context, name, value)
    with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as connection:
        der = connection.getpeercert(True) or b""
        return ssl.DER_cert_to_PEM_cert(der).encode(), connection.selected_alpn_protocol(), connection.version()


def test_a_changed_certificate_is_shown_to_the_next_client(tmp_path: Path) -> None:
    clock = Clock()
    write(tmp_path, A)
    certificates = Certificates(str(tmp_path), reload=True, clock=clock)

    async def main() -> None:
        async with serving(certificates) as served:
            assert await asyncio.to_thread(shown, served.port) == (A.chain, "h2", "TLSv1.3")
            write(tmp_path, B)
            clock.now = 1.0
            assert await asyncio.to_thread(shown, served.port) == (B.chain, "h2", "TLSv1.3")

    run(main)


def test_grpc_aio_talks_through_tls(tmp_path: Path) -> None:
    make(tmp_path)
    trusted = grpc.ssl_channel_credentials((tmp_path / "tls.crt").read_bytes())

    async def main() -> None:
        async with serving(Certificates(str(tmp_path))) as served:
            channel = grpc.aio.secure_channel(f"127.0.0.1:{served.port}", trusted)
            call = channel.stream_stream(METHOD)(iter(ASKED))
            assert kinds([await call.read(), await call.read()]) == ["request_headers", "request_body"]
            await channel.close()

    run(main)


@pytest.mark.parametrize(
    ("minimum", "offered", "agreed"),
    [("", ssl.TLSVersion.TLSv1_2, "TLSv1.2"), ("VersionTLS13", ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
def test_the_lowest_tls_version_is_agreed(minimum: str, offered: ssl.TLSVersion, agreed: str) -> None:
    async def main() -> None:
        terms = Terms(minimum=minimum, alpn=("h2",))
        async with serving(Certificates(), terms=terms) as served:
            assert (await asyncio.to_thread(shown, served.port, maximum_version=offered))[2] == agreed

    run(main)


def test_a_version_below_the_lowest_is_refused() -> None:
    async def main() -> None:
        async with serving(Certificates(), terms=Terms(minimum="VersionTLS13")) as served:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.to_thread(shown, served.port, maximum_version=ssl.TLSVersion.TLSv1_2)

    run(main)


def test_only_the_ciphers_that_were_named_are_agreed() -> None:
    def cipher(port: int) -> str:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", port), 10) as raw, context.wrap_socket(raw) as connection:
            return (connection.cipher() or ("",))[0]

    async def main() -> None:
        named = "ECDHE-ECDSA-CHACHA20-POLY1305"
        async with serving(Certificates(), terms=Terms(ciphers=named, alpn=("h2",))) as served:
            assert await asyncio.to_thread(cipher, served.port) == named

    run(main)


def test_ciphers_that_nobody_knows_are_refused_at_start() -> None:
    async def main() -> None:
        with pytest.raises(CertificateError, match="none of the cipher suites"):
            await Served(terms=Terms(ciphers="NO-SUCH")).server.start(0, 0, Certificates())

    run(main)


# ---- the end


def test_a_port_that_is_taken_is_named() -> None:
    async def main() -> None:
        async with serving() as served:
            with pytest.raises(OSError, match=rf"can't listen on port {served.port} \(--grpc-port\)"):
                await Served().server.start(served.port, 0, None)

    run(main)


def test_open_streams_have_the_grace_to_end() -> None:
    async def main() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = channel.stream_stream(METHOD)()
            await call.write(ASKED[0])
            await call.write(ASKED[1])
            await call.read()
            stopping = asyncio.create_task(served.server.stop(10))
            await asyncio.sleep(0.05)
            await call.read()
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK
            await stopping

    run(main)


def test_streams_that_do_not_end_are_cut() -> None:
    async def main() -> None:
        async with serving() as served, grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            call = channel.stream_stream(METHOD)()
            await call.write(ASKED[0])
            await call.write(ASKED[1])
            assert kinds([await call.read(), await call.read()]) == ["request_headers", "request_body"]
            await served.server.stop(0.05)
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    run(main)


def test_a_client_that_asks_and_reads_nothing_is_cut_off() -> None:
    fields = [(name, "/no/such" * 20 if name == ":path" else value) for name, value in REQUEST]
    encoder = hpack.Encoder()
    first, then = encoder.encode(fields), encoder.encode(fields)
    wire = HELLO + wire_frame(HEADERS, 5, 1, first)
    wire += b"".join(wire_frame(HEADERS, 5, number, then) for number in range(3, 400_001, 2))

    async def main() -> None:
        async with serving() as served:
            with socket.create_connection(("127.0.0.1", served.port)) as silent:
                silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                silent.setblocking(False)
                loop = asyncio.get_running_loop()
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(silent, wire)
                received = 0
                with contextlib.suppress(ConnectionError):
                    while piece := await loop.sock_recv(silent, 1 << 20):
                        received += len(piece)
                assert received < 200_000 * 100

    run(main)
