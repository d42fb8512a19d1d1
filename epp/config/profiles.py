"""Which plug-ins decide together: the profiles, their handler and their pickers, with what is added to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from epp.config.errors import ConfigError
from epp.config.roster import Roster
from epp.config.schema import Config, SchedulingProfile
from epp.plugins import Plugin

VOTING = ("filter", "scorer", "picker")
"""Places in a profile."""


@dataclass(frozen=True, slots=True)
class Seat:
    """One plug-in's place in a profile."""

    plugin: Plugin
    weight: float = 1.0
    why: str = ""
    """Why it was added; "" = it is in the file."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A profile before its plug-ins are bound to what they read."""

    name: str
    seats: tuple[Seat, ...]
    why: str = ""

    def seated(self, place: str) -> list[Seat]:
        return [seat for seat in self.seats if place in seat.plugin.places]


def drafts(config: Config, roster: Roster) -> list[Draft]:
    """The profiles, each with one picker."""
    found = [_draft(given, f"schedulingProfiles[{n}]", roster) for n, given in enumerate(config.scheduling_profiles)]
    _check_names(found)
    if not found:
        seats = tuple(Seat(plugin) for plugin in roster.plugins.values() if set(VOTING) & set(plugin.places))
        found = [Draft("default", seats, why="there was no profile: every filter, scorer and picker is in it")]
    complete = [_with_picker(draft, number, roster) for number, draft in enumerate(found)]
    _warn_of_unused(complete, roster)
    return complete


def _draft(given: SchedulingProfile, path: str, roster: Roster) -> Draft:
    if not given.name:
        raise ConfigError(f"{path}.name", "missing; a profile needs a name")
    return Draft(given.name, tuple(_seats(given, path, roster)))


def _seats(given: SchedulingProfile, path: str, roster: Roster) -> Iterator[Seat]:
    for number, member in enumerate(given.plugins):
        where = f"{path}.plugins[{number}].pluginRef"
        entry = roster.named(member.plugin_ref, where)
        plugin = roster.plugins.get(entry.name)
        if plugin is not None and set(VOTING) & set(plugin.places):
            yield Seat(plugin, 1.0 if member.weight is None else member.weight)


def _check_names(found: list[Draft]) -> None:
    seen: set[str] = set()
    for number, draft in enumerate(found):
        if draft.name in seen:
            raise ConfigError(
                f"schedulingProfiles[{number}].name", f"two profiles are named {draft.name!r}; rename one"
            )
        seen.add(draft.name)


def _with_picker(draft: Draft, number: int, roster: Roster) -> Draft:
    path = f"schedulingProfiles[{number}]"
    pickers = draft.seated("picker")
    if len(pickers) > 1:
        names = ", ".join(seat.plugin.name for seat in pickers)
        raise ConfigError(path, f"profile {draft.name!r} has several pickers: {names}; keep one")
    if pickers:
        return draft
    configured = (plugin for plugin in roster.plugins.values() if "picker" in plugin.places)
    fallback = next(configured, None)
    if fallback is None:
        fallback = roster.plugins[roster.ensure("max-score-picker", path, "no picker was configured").name]
    return replace(draft, seats=(*draft.seats, Seat(fallback, why="the profile named no picker")))


def _warn_of_unused(found: list[Draft], roster: Roster) -> None:
    used = {seat.plugin.name for draft in found for seat in draft.seats}
    for plugin in roster.plugins.values():
        if plugin.name not in used and {"filter", "scorer"} & set(plugin.places):
            path = roster.entries[plugin.name].path
            roster.warnings.append(f"{path}: no profile names {plugin.name!r}, so it neither filters nor scores")


def handler(found: list[Draft], roster: Roster) -> Plugin:
    """The one profile handler; added if there is one profile."""
    handlers = [plugin for plugin in roster.plugins.values() if "profile_handler" in plugin.places]
    if not handlers and len(found) == 1:
        entry = roster.ensure("single-profile-handler", "plugins", "there is one profile and no profile handler")
        return roster.plugins[entry.name]
    if len(handlers) != 1:
        names = ", ".join(plugin.name for plugin in handlers)
        have = (
            f"several profile handlers: {names}; keep one"
            if handlers
            else f"{len(found)} profiles and no profile handler"
        )
        raise ConfigError("plugins", have if handlers else f"{have}; add header-profile-handler, or keep one profile")
    if handlers[0].type.type == "single-profile-handler" and len(found) > 1:
        names = ", ".join(draft.name for draft in found)
        raise ConfigError(
            "schedulingProfiles",
            f"single-profile-handler takes one profile, not {len(found)} ({names}); keep one of them",
        )
    return handlers[0]
