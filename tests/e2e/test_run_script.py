"""deploy/compose/run.sh starts what it says and takes all of it away again."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from pathlib import Path

import yaml

from .chat import ask, completion
from .processes import child, endpoints_file, free_port, settles
from .test_standalone import FOLDER, shipped

SCRIPT = Path(__file__).parents[2] / "deploy" / "compose" / "run.sh"
FLAGS = ("--grpc-health-port=0", "--metrics-port=0")


def folder(path: Path, picker_port: int, admin_port: int) -> Path:
    """As deploy/standalone, on free ports; no endpoints yet."""
    path.mkdir()
    (path / "envoy.yaml").write_text(yaml.safe_dump(shipped(picker_port, admin_port)))
    endpoints = endpoints_file(path / "endpoints.yaml", [])
    config = (FOLDER / "epp.yaml").read_text().replace("deploy/standalone/endpoints.yaml", str(endpoints))
    (path / "epp.yaml").write_text(config)
    return path


def listening_on(admin_port: int) -> int:
    """The port of Envoy's first listener; 0 until it is there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/listeners?format=json", timeout=5) as page:
            [first, *_] = json.loads(page.read())["listener_statuses"]
            return int(first["local_address"]["socket_address"]["port_value"])
    except OSError:
        return 0


def test_a_request_is_answered_until_it_is_interrupted(tmp_path: Path) -> None:
    picker_port, admin_port = free_port(), free_port()
    files = folder(tmp_path / "files", picker_port, admin_port)
    command = [SCRIPT, files, f"--grpc-port={picker_port}", *FLAGS]
    with child(command, tmp_path / "log", {"ENGINES_PORT": "0"}) as script:
        engines = [found[1] for found in script.line(r"^serving \S+ on http://(\S+)$", 2)]
        endpoints_file(files / "endpoints.yaml", engines)
        assert settles(True, lambda: listening_on(admin_port) > 0)
        port = listening_on(admin_port)
        assert settles(200, lambda: ask(port, completion()).status) == 200
        script.process.send_signal(signal.SIGINT)
        assert script.process.wait(30) == 0
    assert listening_on(admin_port) == 0
    assert re.search(r'"msg": ?"stopped', (tmp_path / "log").read_text()) is not None
