"""What plug-ins remember survives a change of the configuration: an heir adopts it from the one it replaces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from epp.plugins import Plugin, shown


@dataclass(frozen=True, slots=True)
class Heir:
    """A plug-in and the one of its name and type that it replaces, which has other settings or other code."""

    plugin: Plugin
    before: Plugin


def take_over(heirs: Iterable[Heir]) -> dict[str, str]:
    """Let every heir that can adopt what the one before it knows; name → what went wrong.

    To be called where the plug-ins in service are, between two decisions. An heir that failed may know half: build the
    configuration again without it among the inherited.
    """
    failed = {}
    for heir in heirs:
        adopt = heir.plugin.hook("adopt")
        if adopt is None:
            continue
        try:
            adopt(heir.before.instance)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a stranger's code; it costs what was remembered, no more
            failed[heir.plugin.name] = shown(error)
    return failed
