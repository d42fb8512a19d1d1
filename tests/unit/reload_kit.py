"""A mounted ConfigMap, and a picker's configuration that follows two of them."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

from epp.config import Built, Live, Origin, start
from epp.plugin_files import PACKAGE
from epp.reload import Reloader
from tests.config_kit import HEAD

CONFIG = """\
plugins: [{type: queue-scorer}, {type: prefix-cache-scorer}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: queue-scorer, weight: 2}, {pluginRef: prefix-cache-scorer}]
"""
COUNTER = """\
import numpy as np
from epp import Endpoints, Request, Scores

VERSION = 1

class Counter:
    def __init__(self, *, start: int = 0) -> None:
        self.count, self.asked = start, []

    def __call__(self, request: Request, endpoints: Endpoints) -> Scores:
        self.asked.append(request.id)
        return np.ones(len(endpoints))

    def adopt(self, before):
        self.count = before.count

    def state(self):
        return {"count": self.count}
"""
"""A plug-in file whose type, counter, hands its count over and notes which requests it saw."""
COUNTING = "plugins: [{type: counter}]\n"


class ConfigMap:
    """A folder as kubelet mounts a ConfigMap: names are links to ..data/name, ..data is a link to a folder of this
    version's files, and an update swaps that one link by renaming another over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = itertools.count()
        folder.mkdir()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        before = self.folder / "..data"
        old = os.readlink(before) if before.is_symlink() else ""
        version = f"..2026_01_01_00_00_00.{next(self._version)}"
        (self.folder / version).mkdir()
        for name, text in files.items():
            (self.folder / version / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        os.symlink(version, self.folder / "..data_tmp")
        os.rename(self.folder / "..data_tmp", before)
        self._link(set(files))
        if old:
            shutil.rmtree(self.folder / old)

    def _link(self, names: set[str]) -> None:
        there = {path.name for path in self.folder.iterdir() if not path.name.startswith("..")}
        for name in names - there:
            os.symlink(f"..data/{name}", self.folder / name)
        for name in there - names:
            os.unlink(self.folder / name)


class Counts:
    """What came of changes, counted."""

    def __init__(self) -> None:
        self.successes = self.failures = 0

    def reloaded(self) -> None:
        self.successes += 1

    def refused(self) -> None:
        self.failures += 1


class World:
    """A configuration and plug-in files, each in a ConfigMap, and what is in force of them. Made inside a loop."""

    def __init__(
        self, folder: Path, config: str = CONFIG, plugins: Mapping[str, str] | None = None, **timing: float
    ) -> None:
        self._configs, self._plugins = ConfigMap(folder / "config"), ConfigMap(folder / "plugins")
        self.config_file, self.plugins_path = folder / "config" / "epp.yaml", folder / "plugins"
        self.counts = Counts()
        self.applied: list[Built] = []
        self.in_force = asyncio.Event()
        self.refusal: Exception | None = None
        self.configure(config)
        self.plug_in(plugins or {})
        origin = Origin(config_file=str(self.config_file), plugins_path=str(self.plugins_path), experimental=True)
        timing = {"poll_s": 0.001, "settle_s": 0.001} | timing
        self.reloader = Reloader(start(origin), self.apply, self.counts, **timing)

    def apply(self, built: Built) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(built)
        self.in_force.set()

    def configure(self, config: str | bytes) -> None:
        self._configs.write({"epp.yaml": config if isinstance(config, bytes) else HEAD + dedent(config)})

    def plug_in(self, files: Mapping[str, str]) -> None:
        self._plugins.write(files)

    async def settle(self) -> None:
        """Look until the files are at rest."""
        while not await self.reloader.look():
            pass

    @property
    def live(self) -> Live:
        return self.reloader.live

    def instance(self, name: str) -> Any:  # of whatever class the plug-in is
        return self.live.built.setup.plugins[name].instance


@contextmanager
def modules_forgotten() -> Iterator[None]:
    """What plug-in files left in the interpreter goes with the test."""
    finders = list(sys.meta_path)
    yield
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]
    sys.meta_path[:] = finders


class Gate:
    """Where a plug-in file waits at its import, until the test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def wait(self) -> None:
        self.reached.set()
        self.opened.wait()


def run(test: Callable[[], Any]) -> None:
    """Run a test that is a coroutine function."""
    asyncio.run(test())
