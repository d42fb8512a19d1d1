"""vLLM servers, the picker and Envoy as processes, each in a process group of its own and ended by its process id."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[1]
STANDALONE = ROOT / "deploy" / "standalone"
BIN = Path(sys.executable).parent
LOOPBACK = "127.0.0.1"
MODEL = "tiny"
VLLM_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    # Left alone, every server binds its threads to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
}
VLLM_START_S = 300.0
"""35 s on two free cores; both start at once, perhaps on a busy machine."""
START_S = 30.0
END_S = 20.0


class NotStarted(Exception):
    """A part ended or stayed silent; the message holds the end of its log."""


@dataclass(frozen=True)
class Page:
    """An HTTP server's address, with a /metrics page in Prometheus's text format."""

    port: int

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as reply:
            return str(reply.read().decode())

    def answers(self, path: str) -> bool:
        try:
            self.get(path)
        except OSError:
            return False
        return True

    def total(self, sample: str, **labels: str) -> float:
        """Sum over the series of /metrics called `sample` that have these labels."""
        return sum(value for had, value in self.series(sample) if labels.items() <= had.items())

    def series(self, sample: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series called `sample`."""
        families = text_string_to_metric_families(self.get("/metrics"))
        return [(one.labels, one.value) for family in families for one in family.samples if one.name == sample]


@dataclass(frozen=True)
class Part:
    """A running process; its output is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, ready: Callable[[], bool], within_s: float) -> None:
        give_up = time.monotonic() + within_s
        while not ready():
            if self.process.poll() is not None or time.monotonic() > give_up:
                state = "is silent" if self.process.poll() is None else f"ended with {self.process.returncode}"
                raise NotStarted(f"{self.log.stem} {state}:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.1)


@contextmanager
def part(command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Part]:
    """Ctrl-C at the terminal does not reach it: whoever started it ends it, children included."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=os.environ | dict(environment or {}),
            cwd=ROOT,
            # Not a session: Linux may share cores out by sessions, and a busy one then holds up the picker for seconds.
            process_group=0,
        )
    try:
        yield Part(process, log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, later SIGKILL, to the process, then to what it left: vLLM's engine outlives its killed API server."""
    give_up = time.monotonic() + END_S
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < give_up:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """For what must be told its port before it starts."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Vllm(Page):
    """One real vLLM server."""

    name: str
    part: Part

    def load_reports(self) -> list[dict[str, float]]:
        """The load reports it was asked for so far: it logs each."""
        found = re.findall(r"Created ORCA header .*?JSON (\{.*\})'", self.part.log.read_text())
        return [json.loads(report)["named_metrics"] for report in found]

    def scrapes(self) -> int:
        """How often its metrics were read so far."""
        return self.part.log.read_text().count('"GET /metrics HTTP')

    def kill(self) -> None:
        """SIGKILL to its API server: the port is closed at once."""
        self.part.process.kill()
        self.part.process.wait()


@contextmanager
def vllm_servers(venv: Path, model: Path, folder: Path, names: Sequence[str]) -> Iterator[list[Vllm]]:
    """Real vLLM servers on CPU, ready; they start at the same time."""
    with ExitStack() as stack:
        servers = []
        for name in names:
            port = free_port()
            command = _vllm_command(venv, model, port)
            started = stack.enter_context(part(command, folder / f"{name}.log", VLLM_ENVIRONMENT))
            servers.append(Vllm(port, name, started))
        for server in servers:
            server.part.wait_until(partial(server.answers, "/health"), VLLM_START_S)
        yield servers


def _vllm_command(venv: Path, model: Path, port: int) -> list[str | Path]:
    command: list[str | Path] = [venv / "bin" / "vllm", "serve", model, "--served-model-name", MODEL]
    command += ["--host", LOOPBACK, "--port", str(port)]
    command += ["--max-model-len", "8192", "--dtype", "bfloat16", "--enforce-eager"]
    return [*command, "--enable-prompt-tokens-details"]


@dataclass(frozen=True)
class Picker(Page):
    """A running picker; its page is the metrics port."""

    def picked(self, decision_id: str) -> str:
        """Name of the endpoint."""
        return str(self.decision(decision_id)["picked"][0]).partition("/")[2]

    def decision(self, decision_id: str) -> dict[str, Any]:
        """As /debug/decisions shows it."""
        found: dict[str, Any] = json.loads(self.get(f"/debug/decisions?id={decision_id}"))
        return found


@contextmanager
def picker(folder: Path, servers: Sequence[Vllm], grpc_port: int, *flags: str) -> Iterator[Picker]:
    """`epp` with the configuration of deploy/standalone and an endpoints file of its own."""
    endpoints = [{"name": server.name, "address": LOOPBACK, "port": server.port} for server in servers]
    (folder / "endpoints.yaml").write_text(yaml.safe_dump({"endpoints": endpoints}))
    config = (STANDALONE / "epp.yaml").read_text()
    config = config.replace("deploy/standalone/endpoints.yaml", str(folder / "endpoints.yaml"))
    (folder / "epp.yaml").write_text(config)
    page = Picker(free_port())
    ports = {"--grpc-port": grpc_port, "--grpc-health-port": 0, "--metrics-port": page.port}
    command: list[str | Path] = [BIN / "epp", "--config-file", folder / "epp.yaml", "--emit-decision-id", *flags]
    command += ["--metrics-endpoint-auth=false", "--refresh-prometheus-metrics-interval=200ms"]
    command += [f"{flag}={port}" for flag, port in ports.items()]
    log = folder / f"epp-{len(list(folder.glob('epp-*.log'))) + 1}.log"
    with part(command, log) as started:
        started.wait_until(lambda: page.answers("/healthz"), START_S)
        started.wait_until(lambda: page.total("llm_d_epp_ready_endpoints") == len(servers), START_S)
        yield page


@contextmanager
def envoy(folder: Path, picker_port: int) -> Iterator[Page]:
    """A real Envoy with deploy/standalone/envoy.yaml but for its ports; all on loopback. Its page is for clients."""
    clients, ready = Page(free_port()), Page(free_port())
    ports = {8081: clients.port, 19001: ready.port, 19000: free_port(), 9002: picker_port}
    shipped = (STANDALONE / "envoy.yaml").read_text().replace("0.0.0.0", LOOPBACK)
    moved = re.sub(r"port_value: (\d+)", lambda found: f"port_value: {ports[int(found[1])]}", shipped)
    (folder / "envoy.yaml").write_text(moved)
    command: list[str | Path] = [BIN / "envoy", "--config-path", folder / "envoy.yaml", "--concurrency", "1"]
    with part([*command, "--disable-hot-restart", "--log-level", "warning"], folder / "envoy.log") as started:
        started.wait_until(lambda: ready.answers("/ready"), START_S)
        yield clients
