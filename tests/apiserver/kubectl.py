"""A kubectl to talk to a server with."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 60


@dataclass(frozen=True)
class Kubectl:
    """One kubectl with one configuration, in one namespace."""

    binary: str
    config: Path
    namespace: str = "default"

    def command(self, *words: str) -> list[str]:
        return [self.binary, f"--kubeconfig={self.config}", f"--namespace={self.namespace}", *words]

    def run(self, *words: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        around = os.environ | {"HOME": str(self.config.parent)} | environment
        asked: dict[str, Any] = {"input": text, "capture_output": True, "text": True, "timeout": PATIENCE_S}
        return subprocess.run(self.command(*words), check=False, env=around, **asked)

    def __call__(self, *words: str, text: str = "", **environment: str) -> str:
        """What it prints; it must succeed."""
        done = self.run(*words, text=text, **environment)
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def refused(self, *words: str, text: str = "") -> str:
        """What it complains of; it must fail."""
        done = self.run(*words, text=text)
        assert done.returncode != 0, f"{words}: {done.stdout}"
        return done.stderr + done.stdout

    def read(self, *words: str) -> Any:
        return json.loads(self("get", *words, "-o", "json"))

    def names(self, *words: str) -> list[str]:
        return self("get", *words, "-o", "name").split()
