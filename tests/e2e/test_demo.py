"""The demonstration, shortened: what it shows, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

LIMIT_S = 90.0
MARK = "EPP_DEMO_MARK"
ROWS = ["requests/s", "TTFT p50", "TTFT p90", "TTFT p99", "prefix-cache hit share", "load imbalance", "errors"]


@dataclass
class Running:
    """A demonstration whose output goes to a terminal of 100 columns."""

    process: subprocess.Popen[bytes]
    terminal: int
    shown: str = ""

    def wait_for(self, pattern: str) -> re.Match[str]:
        give_up = time.monotonic() + LIMIT_S
        while (found := re.search(pattern, self.shown, re.MULTILINE)) is None:
            assert time.monotonic() < give_up, f"{pattern!r} never came:\n{self.shown}"
            assert self._read(), f"it ended before {pattern!r} came:\n{self.shown}"
        return found

    def end(self) -> int:
        """Read on to the end; the exit status."""
        while self._read():
            pass
        return self.process.wait(LIMIT_S)

    def _read(self) -> bool:
        try:
            piece = os.read(self.terminal, 4096)
        except OSError:  # how Linux tells that the other side is closed
            return False
        self.shown += piece.decode(errors="replace").replace("\r\n", "\n")
        return bool(piece)


@contextmanager
def demo(*flags: str) -> Iterator[Running]:
    master, terminal = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "sim.demo", *flags], stdout=terminal, stderr=terminal)
    os.close(terminal)
    running = Running(process, master)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            running.end()
        os.close(master)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Inherited by everything the demonstration starts, whose files go to a folder of the test."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return mark


def processes(mark: str) -> list[str]:
    """Command lines of what runs and inherited the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended, or belongs to somebody else
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def test_it_measures_all_explains_decisions_and_leaves_nothing(marked: str, tmp_path: Path) -> None:
    with demo("--seconds", "2") as running:
        assert running.end() == 0
    table = running.shown[running.shown.index("requests/s") :].splitlines()
    assert [row for row in ROWS if any(line.startswith(row) for line in table)] == ROWS
    assert next(line for line in table if line.startswith("errors")).split() == ["errors", "0", "0", "0"]
    assert re.search(r"^▶ default/engine-\d .*\npicked default/engine-\d", running.shown, re.MULTILINE | re.DOTALL)
    assert "too busy" not in running.shown
    assert (processes(marked), list(tmp_path.iterdir())) == ([], [])


@pytest.mark.parametrize("moment", [r"random +starting", r"random .* [1-9]\d* sent", r"recommended +starting"])
def test_a_signal_at_any_moment_ends_everything(marked: str, tmp_path: Path, moment: str) -> None:
    with demo("--seconds", "1") as running:
        running.wait_for(moment)
        running.process.send_signal(signal.SIGINT)
        running.wait_for("ending everything")
        running.process.send_signal(signal.SIGINT)  # somebody impatient
        assert running.end() == 130
    assert "Traceback" not in running.shown
    assert (processes(marked), list(tmp_path.iterdir())) == ([], [])


@pytest.mark.needs_debian("curl")
def test_what_is_kept_can_be_tried_as_it_says(marked: str) -> None:
    with demo("--seconds", "1", "--keep") as running:
        engine = running.wait_for(r"^failure +kill (\d+) ends engine-0:")[1]
        assert "sim.server" in Path(f"/proc/{engine}/cmdline").read_text()
        whole, streamed = (curl(found[0]) for found in re.finditer(r"^curl .*\n.*$", running.shown, re.MULTILINE))
        decision = running.wait_for(r"^decisions +(\S+)\?limit=1$")[1]
        named = re.search(r"^x-epp-decision-id: (\S+)", whole, re.MULTILINE)
        assert named is not None
        assert json.loads(page(f"{decision}?id={named[1]}"))["picked"][0].startswith("default/engine-")
        assert streamed.endswith("data: [DONE]\n\n")
        assert "llm_d_epp_" in page(running.wait_for(r"^metrics +(\S+)$")[1])
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0
    assert processes(marked) == []


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as found:
        return str(found.read().decode())


def curl(command: str) -> str:
    return subprocess.run(shlex.split(command.replace("\\\n", " ")), capture_output=True, text=True, check=True).stdout


def test_a_port_that_is_taken_is_named(marked: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, demo("--port", str(taken.getsockname()[1])) as running:
        assert running.end() == 1
        assert f"port {taken.getsockname()[1]} can't be had (Address already in use)" in running.shown
    assert processes(marked) == []
