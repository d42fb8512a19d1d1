"""A real Prometheus: reads pickers and engines as its Operator would have it, and is asked over its own API."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .processes import child, free_port, settles

WINDOW = "5s"
"""What stands in place of Grafana's $__rate_interval: several scrapes."""
Json = dict[str, Any]  # answers of Prometheus' API


class Rejected(Exception):
    """Prometheus could not answer; the message is its own."""


@dataclass(frozen=True)
class Target:
    """Something to read, with the labels that the Operator gives it."""

    job: str
    address: str
    port_name: str
    pod: str

    def config(self) -> Json:
        labels = {"namespace": "llm", "pod": self.pod, "service": self.job, "container": "main"}
        return {
            "job_name": f"{self.job} {self.pod}",
            "static_configs": [
                {"targets": [self.address], "labels": {**labels, "job": self.job, "endpoint": self.port_name}}
            ],
        }


@dataclass(frozen=True)
class Prometheus:
    """A running server."""

    port: int

    def api(self, path: str, **parameters: str) -> Any:  # `data` of the answer has a shape of its own for each path
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}?{query}", timeout=20) as page:
                return json.load(page)["data"]
        except urllib.error.HTTPError as refused:
            raise Rejected(f"{parameters}: {refused.read().decode()}") from None

    def ask(self, text: str, **variables: str) -> list[Json]:
        """The series of an instant query that have a number; Grafana's variables are `.*` unless given."""
        found = self.api("query", query=filled(text, variables))["result"]
        return [one for one in found if math.isfinite(float(one["value"][1]))]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5) as page:
                return bool(page.status == 200)
        except OSError:
            return False

    def targets_up(self) -> int:
        return len([one for one in self.api("targets")["activeTargets"] if one["health"] == "up"])


def filled(text: str, variables: Mapping[str, str]) -> str:
    """A panel's query as Grafana would send it."""
    text = text.replace("$__rate_interval", WINDOW)
    for name in ("namespace", "pool", "model_name"):
        text = text.replace(f"${name}", variables.get(name, ".*"))
    return text


@contextmanager
def prometheus(folder: Path, targets: Sequence[Target], rules: Path) -> Iterator[Prometheus]:
    """Yielded once every target has been read."""
    config = folder / "prometheus.yaml"
    times = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "1s"}
    whole = {"global": times, "rule_files": [str(rules)], "scrape_configs": [target.config() for target in targets]}
    config.write_text(yaml.safe_dump(whole))
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with child(command, folder / "prometheus.log") as running:
        server = Prometheus(port)
        assert settles(True, server.ready, 30), running.log.read_text()
        assert settles(len(targets), server.targets_up, 30) == len(targets), server.api("targets")
        yield server
