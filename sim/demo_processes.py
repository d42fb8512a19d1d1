"""The processes of the demonstration: started, waited for, ended by their process ids."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

START_S = 30.0
PATIENCE_S = 5.0
"""From asking a process to end to killing it."""
LOOK_EACH_S = 0.02
TAIL_BYTES = 2000


class DemoError(Exception):
    """The demonstration can't go on; the text says why and what to do."""


@dataclass(slots=True)
class Child:
    """A process of ours. What it writes goes to `log`."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stop: signal.Signals

    async def wrote(self, pattern: str) -> re.Match[str]:
        """The first line of its output that matches, once it is there."""
        deadline = asyncio.get_running_loop().time() + START_S
        while asyncio.get_running_loop().time() < deadline:
            found = re.search(pattern, self.log.read_text(errors="replace"), re.MULTILINE)
            if found is not None:
                return found
            self.check()
            await asyncio.sleep(LOOK_EACH_S)
        raise DemoError(f"{self.name} did not get ready within {START_S:.0f} s; {self._tail()}")

    def check(self) -> None:
        """DemoError if it has ended."""
        status = self.process.poll()
        if status is not None:
            raise DemoError(f"{self.name} ended by itself (exit status {status}); {self._tail()}")

    def _tail(self) -> str:
        written = self.log.read_text(errors="replace")[-TAIL_BYTES:].strip()
        return f"it wrote:\n{written}" if written else "it wrote nothing"

    def ask_to_end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(self.stop)

    async def end(self, patience_s: float) -> None:
        """Wait for the end that was asked for, and force it if it does not come."""
        try:
            await asyncio.to_thread(self.process.wait, patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Children:
    """Processes that all end with the block, however it is left. Logs and files go to `folder`."""

    folder: Path
    patience_s: float = PATIENCE_S
    running: list[Child] = field(default_factory=list)

    def start(
        self, name: str, command: Sequence[str | Path], *, stop: signal.Signals = signal.SIGTERM, log: str = ""
    ) -> Child:
        """Not interrupted between starting and remembering: no process is ever lost. `log`: another file to look at."""
        path = self.folder / f"{name}.log"
        with path.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(_environment()),
                # A Ctrl-C in the terminal must reach us alone: we end the others in order.
                process_group=0,
            )
        child = Child(name, process, self.folder / log if log else path, stop)
        self.running.append(child)
        return child

    async def __aenter__(self) -> Children:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ending = asyncio.create_task(self._end(), name="end of the children")
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _end(self) -> None:
        for child in self.running:
            child.ask_to_end()
        await asyncio.gather(*[child.end(self.patience_s) for child in self.running])
        self.running.clear()


def _environment() -> Iterator[tuple[str, str]]:
    """Ours without what would send traces somewhere."""
    return ((key, value) for key, value in os.environ.items() if not key.startswith("OTEL_"))


def script(name: str) -> Path:
    """A command of the environment we run in."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise DemoError(f"there is no {path}; install the package there: pip install -e '.[dev]'")
    return path
