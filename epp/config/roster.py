"""Who is configured: the plug-ins of the file and those added to it, built and by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from epp.config.absent import IDLE, Idle, refusal
from epp.config.decode import worded
from epp.config.errors import ConfigError, choices
from epp.config.heirs import Heir
from epp.config.schema import Config
from epp.feeds.engineconfig import CoreMetricsExtractor
from epp.feeds.file import FileDiscovery
from epp.feeds.scrape import MetricsDataSource
from epp.plugins import Catalogue, Plugin
from epp.settings import PluginError, Setting, decode

FEEDS: Mapping[str, type[msgspec.Struct]] = {
    "metrics-data-source": MetricsDataSource,
    "core-metrics-extractor": CoreMetricsExtractor,
    "file-discovery": FileDiscovery,
}
"""Types that are part of the picker, not plug-ins in its sense: they are configured the same way."""


Settings = TypeVar("Settings", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of `plugins`, or one that was added to them."""

    name: str
    type: str
    path: str
    """Where it stands, or where it is asked for."""
    parameters: Mapping[str, Any] = field(default_factory=dict)  # typed by the plug-in's settings
    why: str = ""
    """Why it was added; "" = it is in the file."""


def entries(config: Config) -> list[Entry]:
    """The entries of the file with their names; ConfigError if a type is missing or a name is taken."""
    found: dict[str, Entry] = {}
    for number, given in enumerate(config.plugins):
        path = f"plugins[{number}]"
        if not given.type:
            raise ConfigError(f"{path}.type", f"plug-in {given.name!r} has no type; `epp plugins` lists the types")
        entry = Entry(given.name or given.type, given.type, path, given.parameters or {})
        if entry.name in found:
            other = found[entry.name].path
            raise ConfigError(f"{path}.name", f"{entry.name!r} is the name of {other} too; give one of them another")
        found[entry.name] = entry
    return list(found.values())


def settings_of_struct(kind: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """The fields of a record as settings."""
    return tuple(
        Setting(one.name, one.type, inspect.Parameter.empty if one.required else one.default)
        for one in msgspec.structs.fields(kind)
    )


class Roster:
    """Everything configured, in order. `add` builds it; nothing is ever taken away."""

    def __init__(
        self, catalogue: Catalogue, *, experimental: bool, inherit: Mapping[str, Plugin] | None = None
    ) -> None:
        """`inherit`: plug-ins by name that were configured until now."""
        self.catalogue = catalogue
        self.inherit = inherit or {}
        self.heirs: list[Heir] = []
        self.entries: dict[str, Entry] = {}
        self.plugins: dict[str, Plugin] = {}
        self.feeds: dict[str, msgspec.Struct] = {}
        self.idle: dict[str, Idle] = {}
        self.warnings: list[str] = []
        self._experimental = experimental

    def add_all(self, wanted: Iterable[Entry]) -> None:
        """Build the entries of the file; ConfigError names every one whose type can't be used."""
        wanted = list(wanted)
        problems: dict[str, list[Entry]] = {}
        for entry in wanted:
            if problem := self._problem(entry.type):
                problems.setdefault(problem, []).append(entry)
        if problems:
            (first, told), *others = [(who[0], _told(who, rule)) for rule, who in problems.items()]
            more = [f"\n{entry.path}.type: {text}" for entry, text in others]
            raise ConfigError(f"{first.path}.type", "".join((told, *more)))
        for entry in wanted:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        if problem := self._problem(entry.type):
            raise ConfigError(entry.path, f"{entry.type!r} {problem}")
        self.entries[entry.name] = entry
        if entry.type in self.catalogue:
            self.plugins[entry.name] = self._plugin(entry)
        elif entry.type in FEEDS:
            self.feeds[entry.name] = _feed(entry)
        else:
            self.idle[entry.name] = IDLE[entry.type]
            self.warnings.append(f"{entry.path}: {entry.type} has no effect: {IDLE[entry.type].why}")

    def named(self, name: str, path: str) -> Entry:
        """The entry a reference at `path` means; ConfigError with the choices."""
        if name not in self.entries:
            known = name in self.catalogue or name in FEEDS or name in IDLE
            hint = f"add `- type: {name}` to plugins" if known else choices(name, self.entries)
            raise ConfigError(path, f"no plug-in is named {name!r}; {hint}")
        return self.entries[name]

    def feed(self, entry: Entry, kind: type[Settings]) -> Settings:
        """The settings of an entry whose type is one of FEEDS."""
        found = self.feeds[entry.name]
        if not isinstance(found, kind):
            raise ConfigError(entry.path, f"{entry.name!r} is of type {entry.type}")
        return found

    def of_type(self, type_name: str) -> Entry | None:
        """The entry of that type: the one named like it, else the first."""
        found = [entry for entry in self.entries.values() if entry.type == type_name]
        return next((entry for entry in found if entry.name == type_name), found[0] if found else None)

    def ensure(self, type_name: str, path: str, why: str) -> Entry:
        """The entry of that type, added if there is none."""
        found = self.of_type(type_name)
        if found is None:
            found = Entry(type_name, type_name, path, why=why)
            self.add(found)
        return found

    def _problem(self, type_name: str) -> str:
        """Why no entry of this type can be; reads on from its name."""
        if type_name in self.catalogue:
            if type_name in FEEDS:
                return "is a part of the picker; name the plug-in of this type otherwise"
            try:
                alpha = self.catalogue.find(type_name).alpha
            except PluginError as error:
                return f"can't be used: {error}"
        elif type_name in FEEDS:
            return ""
        elif type_name in IDLE:
            alpha = IDLE[type_name].alpha
        else:
            names = [*self.catalogue.names, *FEEDS]
            return refusal(type_name) or f"is no plug-in type; {choices(type_name, names)}"
        return "is experimental; start with --allow-experimental-plugins" if alpha and not self._experimental else ""

    def _plugin(self, entry: Entry) -> Plugin:
        before = self.inherit.get(entry.name)
        try:
            plugin = self.catalogue.build(entry.name, entry.type, entry.parameters, f"{entry.path}.parameters", before)
        except PluginError as error:
            raise _translated(error, entry) from error
        if before is not None and before.type.type == entry.type and before.instance is not plugin.instance:
            self.heirs.append(Heir(plugin, before))
        target = plugin.type.target
        if deprecated := getattr(target, "deprecated", ""):
            self.warnings.append(f"{entry.path}.type: {entry.type} is deprecated; {deprecated}")
        if entry.parameters and not plugin.type.settings:
            given = ", ".join(entry.parameters)
            self.warnings.append(f"{entry.path}.parameters: {entry.type} has no settings; without effect: {given}")
        if inspect.isclass(target):
            own = getattr(plugin.instance, "warnings", ())
            self.warnings += [f"{entry.path} ({entry.name}): {warning}" for warning in own]
        return plugin


def _told(who: list[Entry], rule: str) -> str:
    first, *others = who
    likewise = ", ".join(f"{other.type!r} ({other.path})" for other in others)
    return f"{first.type!r} {rule}" + (f"; likewise {likewise}" if others else "")


def _feed(entry: Entry) -> msgspec.Struct:
    kind = FEEDS[entry.type]
    try:
        return kind(**decode(f"{entry.path}.parameters ({entry.type})", settings_of_struct(kind), entry.parameters))
    except PluginError as error:
        raise _translated(error, entry) from error


def _translated(error: PluginError, entry: Entry) -> ConfigError:
    """The plug-in's own error opens with `path (type)`, to which it may add the name of a setting."""
    head, _, problem = str(error).partition(": ")
    mark = f" ({entry.type})"
    if not head.startswith(entry.path) or mark not in head:
        return ConfigError(entry.path, str(error))
    return ConfigError(head.replace(mark, "", 1), f"{entry.type}: {worded(problem)}")
