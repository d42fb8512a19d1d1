"""Whether requests should be sent here, and if not, why not: asked by every probe, told when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from epp.plugins import Plugin, shown

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What readiness depends on besides the plug-ins, at one moment."""

    synced: bool
    """The endpoints are known; they may be none."""
    draining: bool = False
    app_protocol: str = ""
    """What the pool says its endpoints speak."""
    protocol_ok: bool = True
    """Every parser can be used with that."""
    leading: bool = True
    """True without leader election."""


def obstacle(standing: Standing) -> str:
    """Why requests should not be sent here, plug-ins left aside; "" = they should."""
    if standing.draining:
        return "draining"
    if not standing.synced:
        return "endpoints are not known yet"
    if not standing.protocol_ok:
        return (
            f"the pool's appProtocol is {standing.app_protocol}, which a configured parser can't be used with; "
            "change one of them"
        )
    return "" if standing.leading else "another replica leads"


def unready(plugins: Iterable[Plugin]) -> tuple[str, str]:
    """Which plug-ins say by `ready()` that they are not, and whose `ready()` failed, with what; "" = none.

    One that fails has said nothing: a stranger's fault must not take the picker out of service.
    """
    waiting, failed = [], []
    for plugin in plugins:
        method = plugin.hook("ready")
        try:
            if method is not None and not method():
                waiting.append(plugin.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a stranger's code raises
            failed.append(f"{plugin.name}: {shown(error)}")
    return ", ".join(waiting), ", ".join(failed)


class Readiness:
    """Asks anew each time, so that nothing has to be told to it; says in the log when the answer changes."""

    def __init__(self, standing: Callable[[], Standing], plugins: Callable[[], Iterable[Plugin]] = tuple) -> None:
        self._standing = standing
        self._plugins = plugins
        self._said: str | None = None
        self._failed = ""

    def reachable(self) -> bool:
        """Ready but for the plug-ins."""
        return not obstacle(self._standing())

    def ready(self) -> bool:
        """Ready, plug-ins included."""
        why = self.why_not()
        if why != self._said:
            self._said = why
            log.info("not ready: %s" if why else "ready%s", why)
        return not why

    def why_not(self) -> str:
        """The reason; "" = ready."""
        why = obstacle(self._standing())
        if why:
            return why
        waiting, failed = unready(self._plugins())
        if failed and failed != self._failed:
            log.warning("taken for ready, since ready() failed: %s", failed)
        self._failed = failed
        return f"plug-ins are not ready: {waiting}" if waiting else ""
