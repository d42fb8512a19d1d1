"""Whether anybody reads prompts: where nobody does, they stay at the edge."""

from __future__ import annotations

from collections.abc import Iterable

from epp.plugins import CALLED, HOOKS, Plugin

OURS = "scorers"
"""The package of the built-in plug-ins: those that read prompts say so by `reads_prompts = True`."""


def prompts_are_read(plugins: Iterable[Plugin]) -> bool:
    return any(map(reads_prompts, plugins))


def reads_prompts(plugin: Plugin) -> bool:
    """What it says by its attribute `reads_prompts`; a stranger's that says nothing, and sees requests, may."""
    target = plugin.type.target
    said = getattr(target, "reads_prompts", None)
    if said is not None:
        return bool(said)
    if target.__module__.partition(".")[0] in {OURS, "epp"}:
        return False
    hooked = any(plugin.hook(name) is not None for name in HOOKS)
    return hooked or any("request" in plugin.reads(place) for place in plugin.places if place in CALLED)
