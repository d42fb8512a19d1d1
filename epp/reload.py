"""Follows the configuration file and the plug-in files, and puts what changed in force as one thing, or not at all.

Content is compared, as for the endpoints file (docs/adr/0003). What plug-ins remember is handed over by name
(docs/adr/0017).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from epp.config import Built, ConfigError, Live, Reading, take_over
from epp.feeds import FeedError
from epp.feeds.file_watch import POLL_S, SETTLE_S
from epp.plugin_files import PluginFiles
from epp.plugins import Plugin, shown
from epp.settings import PluginError

LIMIT_S = 60.0
"""A configuration that takes longer to build is given up: a plug-in file may wait for ever at its import."""
KEPT = "what was loaded before stays in force"

log = logging.getLogger(__name__)
T = TypeVar("T")


class Outcomes(Protocol):
    """Counts what came of changes."""

    def reloaded(self) -> None:
        """A changed configuration is in force from now on."""

    def refused(self) -> None:
        """A changed configuration can't be used; the one before stays in force."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look found: a reading, or why there is none."""

    reading: Reading
    problem: str = ""


class Reloader:
    """Puts changes in force through `apply`, which is called on the loop between two decisions.

    `apply` may refuse with ConfigError or FeedError, if it changed nothing until then.
    """

    def __init__(
        self,
        live: Live,
        apply: Callable[[Built], None],
        outcomes: Outcomes,
        *,
        poll_s: float = POLL_S,
        settle_s: float = SETTLE_S,
        limit_s: float = LIMIT_S,
    ) -> None:
        self._live = live
        self._apply = apply
        self._outcomes = outcomes
        self._poll_s, self._settle_s, self._limit_s = poll_s, settle_s, limit_s
        self._seen = Seen(live.reading)
        """The last one that something was made of, or tried."""
        self._unsettled: Seen | None = None
        self._asked = asyncio.Event()
        self._again = False
        live.files.show_lines()

    @property
    def live(self) -> Live:
        """The configuration in force."""
        return self._live

    @property
    def follows(self) -> bool:
        """Whether there is anything that can change."""
        return bool(self._live.origin.config_file or self._live.origin.plugins_path)

    def look_now(self) -> None:
        """Do not wait for the next look, and try again what was refused."""
        self._again = True
        self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        settled = True
        while True:
            await self._wait(self._poll_s if settled else self._settle_s)
            settled = not self.follows or await self.look()

    async def look(self) -> bool:
        """One look; what changed counts once it was found the same twice. False until then."""
        seen = await asyncio.to_thread(self._look)
        if seen not in (self._seen, self._unsettled):
            self._unsettled = seen
            return False
        again, self._again, self._unsettled = self._again, False, None
        if seen != self._seen or (again and seen.reading != self._live.reading):
            self._seen = seen
            await self._take_up(seen)
        return True

    def _look(self) -> Seen:
        try:
            return Seen(self._live.origin.read())
        except (ConfigError, PluginError) as error:
            return Seen(Reading(), self._told(error))

    async def _wait(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._asked.wait()
        except TimeoutError:
            return
        self._asked.clear()

    async def _take_up(self, seen: Seen) -> None:
        if not seen.problem and seen.reading == self._live.reading:
            log.info("the configuration is again as it was loaded")
            return
        try:
            if seen.problem:
                raise PluginError(seen.problem)
            await self._reload(seen.reading)
        except (ConfigError, PluginError, FeedError) as error:
            self._outcomes.refused()
            log.error("%s; %s", self._told(error), KEPT)
        except Exception:  # a fault of ours that one configuration brought out; the picker must go on with the other
            self._outcomes.refused()
            log.exception("the changed configuration brought out a fault of the picker; %s", KEPT)

    async def _reload(self, reading: Reading) -> None:
        before = self._live
        if before.reading.config.strip() and not reading.config.strip():
            raise ConfigError("", "the file is empty, which would mean the default configuration; write that out")
        files = before.files
        if reading.files != before.reading.files:
            files = await self._beside(lambda: PluginFiles(reading.files, before.files))
        try:
            built = await self._inherited(reading, files)
            self._apply(built)
        except BaseException:
            if files is not before.files:
                files.drop(before.files)
            raise
        self._live = replace(before, reading=reading, files=files, built=built)
        if files is not before.files:
            before.files.drop(files)
            files.show_lines()
        self._outcomes.reloaded()
        self._tell(before)

    async def _inherited(self, reading: Reading, files: PluginFiles) -> Built:
        """Built, checked, and knowing what those in service know."""
        inherit: Mapping[str, Plugin] = self._live.built.setup.plugins
        while True:
            built = await self._beside(partial(self._live.origin.build, reading, files, inherit))
            self._check_discovery(built)
            failed = take_over(built.heirs)
            if not failed:
                return built
            for name, why in failed.items():
                log.warning("plug-in %s begins without memory: its adopt raised %s", name, why)
            inherit = {name: plugin for name, plugin in inherit.items() if name not in failed}

    def _check_discovery(self, built: Built) -> None:
        if built.discovery != self._live.built.discovery:
            problem = "another than that in force, which can't be exchanged while the picker runs; restart it"
            raise ConfigError("dataLayer.discovery", problem)

    async def _beside(self, work: Callable[[], T]) -> T:
        """Done in a thread of its own, which does not keep the process if it never ends."""
        try:
            async with asyncio.timeout(self._limit_s):
                return await _in_a_thread(work)
        except TimeoutError:
            problem = f"not loaded within {self._limit_s:g} s; does a plug-in wait at its import?"
            raise PluginError(f"{self._live.origin.plugins_path or 'plug-ins'}: {problem}") from None

    def _told(self, error: Exception) -> str:
        """Which file, where in it, what."""
        if not isinstance(error, ConfigError):
            return str(error)
        return f"configuration {self._live.origin.config_file or '(default)'}: {error}"

    def _tell(self, before: Live) -> None:
        live = self._live
        plugins, known = live.built.setup.plugins, before.built.setup.plugins
        kept = [name for name, plugin in plugins.items() if name in known and known[name].instance is plugin.instance]
        adopted = [heir.plugin.name for heir in live.built.heirs if heir.plugin.hook("adopt")]
        files = {source.path for source in {*live.reading.files} ^ {*before.reading.files}}
        what = [*([live.origin.config_file] if live.reading.config != before.reading.config else []), *sorted(files)]
        for warning in live.built.warnings:
            if warning not in before.built.warnings:
                log.warning(warning)
        anew = [name for name in plugins if name not in {*kept, *adopted}]
        log.info("reloaded %s", ", ".join(what), extra={"kept": kept, "adopted": adopted, "anew": anew})


async def _in_a_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises; a stranger's SystemExit or CancelledError becomes a PluginError."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - raised again where it is awaited
            errors.append(error)
        except BaseException as error:  # noqa: BLE001 - it must end neither the loop nor the task
            errors.append(PluginError(f"a plug-in raised {shown(error)} while it was loaded"))
        # The loop is closed if the picker ended while this went on.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="reload", daemon=True).start()
    await done.wait()
    if errors:
        raise errors[0]
    return results[0]
