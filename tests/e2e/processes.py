"""Engines and the picker as processes of their own: started, waited for, ended by their process ids."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

START_S = 30.0
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Tests run in the background of a shell: what they start would ignore it too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
EPP = Path(sys.executable).with_name("epp")
PARSERS = "requestHandler: {parsers: [{pluginRef: %s}]}\n"
"""Added to a configuration: this parser and no other."""
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: ENDPOINTS, watchFile: true}}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
dataLayer:
  discovery: {pluginRef: file-discovery}
"""


class NotStarted(Exception):
    """A process ended or stayed silent; the message holds what it wrote."""


@dataclass
class Child:
    """A running process whose output goes to a file."""

    process: subprocess.Popen[bytes]
    log: Path

    def line(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """The first `count` lines of its output that match, once they are there."""
        give_up = time.monotonic() + START_S
        while time.monotonic() < give_up:
            if len(found := list(re.finditer(pattern, self.log.read_text(), re.MULTILINE))) >= count:
                return found[:count]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        written = self.log.read_text()[-4000:]
        raise NotStarted(f"{self.process.args!r} (exit code {self.process.poll()}) never wrote {pattern!r}:\n{written}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, patience_s: float = 20.0) -> int:
        """SIGTERM, then the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)


@contextmanager
def child(command: Sequence[str | Path], log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Child]:
    """`environ` is added to ours, of which what would export traces or name a cluster is left out."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "KUBE"))}
    environment = kept | dict(environ or {})
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        yield Child(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Engine:
    """One simulated engine."""

    address: str
    child: Child

    def configure(self, **change: Any) -> None:
        """POST /admin/config; keys with underscores for dashes."""
        body = json.dumps({key.replace("_", "-"): value for key, value in change.items()}).encode()
        asked = urllib.request.Request(f"http://{self.address}/admin/config", body, method="POST")
        with urllib.request.urlopen(asked, timeout=5):
            pass

    def requests(self) -> int:
        """Requests that ended well here."""
        with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=5) as page:
            return int(sum_of(page.read().decode(), "vllm:request_success_total"))


@contextmanager
def engines(folder: Path, count: int, *flags: str, model: str = "tiny") -> Iterator[list[Engine]]:
    """`count` engines in one process: fast, none of them killed alone."""
    command = [sys.executable, "-m", "sim.server", "--model", model, "--port", "0", "--data-parallel-size", str(count)]
    with child([*command, *flags], folder / f"engines-{time.monotonic_ns()}.log") as running:
        lines = running.line(r"^serving \S+ on http://(\S+)$", count)
        yield [Engine(line[1], running) for line in lines]


def endpoints_file(path: Path, addresses: Sequence[str], labels: Sequence[dict[str, str]] = ()) -> Path:
    """Written whole and moved into place, as editors and Kubernetes do."""
    entries = []
    for at, address in enumerate(addresses):
        host, _, port = address.rpartition(":")
        entries.append({"name": f"engine-{port}", "address": host.strip("[]"), "port": port})
        if labels:
            entries[-1]["labels"] = labels[at]  # type: ignore[assignment]  # the only value that is a map
    part = path.with_suffix(".part")
    part.write_text(yaml.safe_dump({"endpoints": entries}))
    part.replace(path)
    return path


@dataclass
class Picker:
    """The picker under test."""

    child: Child
    ports: dict[str, int] = field(default_factory=dict)

    @property
    def grpc_port(self) -> int:
        return self.ports["grpc_port"]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics_port']}{path}", timeout=5) as page:
            return str(page.read().decode())

    def metric(self, name: str, **labels: str) -> float:
        """Sum over the series that have these labels."""
        return sum_of(self.get("/metrics"), name, **labels)

    def decisions(self) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = json.loads(self.get("/debug/decisions"))
        return found


@contextmanager
def picker(
    folder: Path, endpoints: Path, *flags: str, config: str = CONFIG, ports: Sequence[int] = (0, 0, 0)
) -> Iterator[Picker]:
    """`epp` with plaintext ext_proc; ENDPOINTS in `config` stands for the file. A flag given again wins."""
    file = folder / "config.yaml"
    file.write_text(config.replace("ENDPOINTS", str(endpoints)))
    listeners = zip(("--grpc-port", "--grpc-health-port", "--metrics-port"), ports, strict=True)
    command = [str(EPP), "--config-file", str(file), "--secure-serving=false", "--metrics-endpoint-auth=false"]
    command += [f"{flag}={port}" for flag, port in listeners] + list(flags)
    if not EPP.exists():
        raise NotStarted(f"no {EPP}; `make .venv/installed` installs the package")
    with child(command, folder / f"picker-{time.monotonic_ns()}.log") as running:
        line = json.loads(running.line(r'^\{.*"msg":"serving".*\}$')[0][0])
        yield Picker(running, {name: line[name] for name in line if name.endswith("_port")})
        running.kill()  # it keeps nothing; how it ends when told to is a test of its own


def chosen(decision: dict[str, Any]) -> str:
    """host:port of the endpoint a decision picked."""
    picked = decision["picked"][0]
    candidates = decision["runs"][0]["candidates"]
    return str(next(row["address"] for row in candidates if row["endpoint"] == picked))


def sum_of(page: str, name: str, **labels: str) -> float:
    """Sum of a metric's series on a Prometheus page whose labels hold these."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    series = (line.rpartition(" ") for line in page.splitlines() if re.match(re.escape(name) + r"[{ ]", line))
    return sum(float(value) for before, _, value in series if all(label in before for label in wanted))


def free_port() -> int:
    """For what must be told its port before it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settles(wanted: Any, read: Any, within_s: float = 10.0) -> Any:
    """What `read` gives, as soon as it equals `wanted`, else what it gave last: assert on the result."""
    give_up = time.monotonic() + within_s
    while (seen := read()) != wanted and time.monotonic() < give_up:
        time.sleep(0.02)
    return seen
