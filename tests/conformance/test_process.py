"""The process in a bad place: streams closed, ports taken, files that are no files."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.e2e.processes import CONFIG, EPP, endpoints_file, free_port, picker, settles

from .conftest import QUIET
from .gateway import CHAT, Gateway, destination, head, kinds, piece

ANSWERED = ["request_headers", "request_body"]


def command(folder: Path, *flags: str) -> list[str]:
    """A picker with ports of its own for one endpoint."""
    config = folder / "config.yaml"
    endpoints = folder / "endpoints.yaml"
    if not endpoints.exists():
        endpoints_file(endpoints, ["127.0.0.1:9"])
    config.write_text(CONFIG.replace("ENDPOINTS", str(endpoints)))
    ports = ["--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0"]
    plain = ["--secure-serving=false", "--metrics-endpoint-auth=false", "--drain-timeout=1s"]
    return [str(EPP), f"--config-file={config}", *plain, *ports, *flags]


def refused(folder: Path, *flags: str) -> str:
    """What a picker that can't start says on stderr."""
    ended = subprocess.run(command(folder, *flags), capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode in {1, 2}
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("flag", ["--grpc-port", "--grpc-health-port", "--metrics-port"])
def test_a_port_in_use_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = taken.getsockname()[1]
        assert f"can't listen on port {port} ({flag})" in refused(tmp_path, f"{flag}={port}")


def test_a_pipe_in_place_of_the_endpoints_file_does_not_hold_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "endpoints.yaml")
    assert "the file is empty" in refused(tmp_path)


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text("junk")
    (tmp_path / "tls.key").write_text("junk")
    assert "holds no certificate" in refused(tmp_path, "--secure-serving=true", f"--cert-path={tmp_path}")


def test_closed_standard_streams_are_no_sockets_of_ours(tmp_path: Path) -> None:
    port = free_port()
    words = " ".join(command(tmp_path, f"--metrics-port={port}"))
    shell = subprocess.Popen(["/bin/sh", "-c", f"exec {words} <&- >&- 2>&-"])
    try:
        assert settles("ok\n", lambda: _page(port, "/healthz")) == "ok\n"
        links = [os.readlink(f"/proc/{shell.pid}/fd/{number}") for number in range(3)]
        assert links == ["/dev/null"] * 3
        shell.send_signal(signal.SIGTERM)
        assert shell.wait(20) == 0
    finally:
        shell.kill()
        shell.wait()


def _page(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as page:
            return str(page.read().decode())
    except OSError:
        return ""


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"x" * 4096)
    os.set_blocking(pipe, True)


def test_a_full_pipe_on_stderr_stops_no_request(tmp_path: Path) -> None:
    read, write = os.pipe()
    fill(write)
    port = free_port()
    process = subprocess.Popen(command(tmp_path, f"--grpc-port={port}", "-v=5"), stderr=write)
    gateway = Gateway(port)
    try:
        assert settles(ANSWERED, lambda: answered(gateway)) == ANSWERED
        assert [answered(gateway) for _ in range(50)] == [ANSWERED] * 50
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        gateway.close()
        process.kill()
        process.wait()
        os.close(read)
        os.close(write)


def answered(gateway: Gateway) -> list[str]:
    """[] if nobody listens yet."""
    try:
        return kinds(gateway.ask())
    except grpc.RpcError:
        return []


def test_an_endpoints_file_may_be_spoilt_and_mended_while_it_is_followed(tmp_path: Path) -> None:
    file = endpoints_file(tmp_path / "endpoints.yaml", ["127.0.0.1:9"])
    with picker(tmp_path, file, *QUIET) as chooser:
        gateway = Gateway(chooser.grpc_port)
        for number, content in enumerate((b"", b"\x00\xff", b"[1]", b"a: [", b"#" * (2 << 20)), 1):
            file.write_bytes(content)
            chooser.child.line(r'"level":"error".*endpoints file', number)
            assert destination(gateway.ask()) == "127.0.0.1:9"
        file.unlink()
        os.mkfifo(file)
        chooser.child.line(r"the file is empty", 2)
        part = tmp_path / "part"
        many = [{"name": f"e{n}", "address": f"127.1.{n >> 8}.{n & 255}", "port": 9} for n in range(10_000)]
        part.write_text(json.dumps({"endpoints": many}))
        part.replace(file)
        assert settles(10_000, lambda: chooser.metric("inference_pool_ready_pods")) == 10_000
        assert destination(gateway.ask()).startswith("127.1.")
        assert "Traceback" not in chooser.child.log.read_text()
        assert chooser.child.end() == 0
        gateway.close()


def test_a_second_signal_ends_the_drain_under_an_open_stream(tmp_path: Path) -> None:
    file = endpoints_file(tmp_path / "endpoints.yaml", ["127.0.0.1:9"])
    with picker(tmp_path, file, "--drain-timeout=600s") as chooser:
        gateway = Gateway(chooser.grpc_port)
        with gateway.stream() as stream:
            stream.send(head(), piece(CHAT, end=True))
            stream.answers(2)
            chooser.child.process.send_signal(signal.SIGTERM)
            chooser.child.line('"msg":"draining"')
            assert answered(gateway) == ANSWERED
            assert chooser.child.end() == 0
        gateway.close()
