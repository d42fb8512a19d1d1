"""Envoy's bootstraps in manifests, judged by the real Envoy."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from tests.e2e.envoy import binary

from .documents import Document, walk

MARK = "static_resources"


def bootstraps(found: list[Document]) -> Iterator[tuple[str, str]]:
    """Where and text of each bootstrap: a file of its own, or a value of a ConfigMap."""
    for document in found:
        if isinstance(document.value, dict) and MARK in document.value:
            yield document.where, yaml.safe_dump(document.value, sort_keys=False)
        for path, value in walk(document.value):
            if isinstance(value, str) and f"{MARK}:" in value:
                yield f"{document} {path}", value


@cache
def complaint(text: str, which: str) -> str:
    """What an Envoy says against a bootstrap; "" = it takes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "envoy.yaml"
        path.write_text(text)
        command = [binary(which), "--mode", "validate", "--config-path", path, "--log-level", "error"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr
