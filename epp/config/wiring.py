"""Who provides what: from the names plug-ins read to the signals that answer them, in an order that works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

from epp.config.errors import ConfigError, choices
from epp.config.roster import Entry, Roster
from epp.plan import Measured
from epp.plugins import GIVEN, GIVEN_ONLY, Catalogue, Plugin, PluginType
from epp.scheduler import Bound
from epp.settings import PluginError
from epp.signals import Provides

Use = tuple[Plugin, str]
"""A plug-in and the place it works in."""


def provided(plugin: Plugin) -> Provides:
    """What a signal provides; nothing for other plug-ins."""
    return plugin.type.provides or Provides({}, "", False, 0.0)


@dataclass(slots=True)
class Wires:
    """Which signal answers which reader, as far as signals are used."""

    chosen: dict[tuple[str, str, str], Plugin] = field(default_factory=dict)
    """(reader, the place it reads in, name it reads) → provider."""
    order: list[Plugin] = field(default_factory=list)
    """The signals used, each after those it reads."""
    missing: list[tuple[Plugin, str]] = field(default_factory=list)
    """(reader, name) where nobody provides what it can't do without."""

    def key(self, provider: Plugin, name: str) -> str:
        """Where a decision keeps what `provider` says: `name`, or `name@provider` where another one has that."""
        every = [plugin for plugin in self.order if name in provided(plugin).values]
        return name if provider is (usual(every) or every[0]) else f"{name}@{provider.name}"

    def bound(self, use: Use) -> Bound:
        """The plug-in ready to be called; what it can do without and nobody provides keeps its own default."""
        plugin, place = use
        call, keys, fixed = plugin.call(place), [], []
        for name, default in plugin.reads(place).items():
            provider = self.chosen.get((plugin.name, place, name))
            given = name in GIVEN or name in GIVEN_ONLY.get(place, ())
            fixed.append(None if given or provider else (default,))
            if given or provider:
                keys.append(self.key(provider, name) if provider else name)
        while fixed and fixed[-1]:
            # The last parameters have their defaults anyway.
            fixed.pop()
        return Bound(plugin.name, _filled(call, fixed) if any(fixed) else call, tuple(keys))

    def measured(self, plugin: Plugin) -> Measured:
        says = provided(plugin)
        return Measured(self.bound((plugin, "signal")), says, tuple(self.key(plugin, name) for name in says.values))


def _filled(call: Callable[..., Any], fixed: Sequence[tuple[Any] | None]) -> Callable[..., Any]:
    """`call` with some of its positional arguments fixed; the others are given, in order."""

    def filled(*given: Any) -> Any:
        rest = iter(given)
        return call(*[next(rest) if one is None else one[0] for one in fixed])

    return filled


def usual(providers: Sequence[Plugin]) -> Plugin | None:
    """The provider whose readers need not name it: the default one under its own name, else the only one."""
    named = [plugin for plugin in providers if provided(plugin).by_default and plugin.name == plugin.type.type]
    if named:
        return named[0]
    return providers[0] if len(providers) == 1 else None


def wire(roster: Roster, uses: Sequence[Use], also: Sequence[str]) -> Wires:
    """Every read of `uses` answered, with default providers added to the roster where nobody else answers.

    `also` are names wanted whether or not a plug-in reads them, if somebody configured provides them.
    """
    while True:
        wires = _Search(roster).all(uses, also)
        if not wires.missing:
            return wires
        for reader, name in wires.missing:
            _add_default(roster, reader, name)


class _Search:
    """One walk from the plug-ins in use to the signals they need."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._signals = [plugin for plugin in roster.plugins.values() if "signal" in plugin.places]
        self._wires = Wires()
        self._done: set[str] = set()
        self._path: list[str] = []

    def all(self, uses: Sequence[Use], also: Sequence[str]) -> Wires:
        for use in uses:
            self._answer(use)
        for name in also:
            providers = self._providers(name)
            if providers:
                self._visit(usual(providers) or providers[0])
        return self._wires

    def _providers(self, name: str) -> list[Plugin]:
        return [plugin for plugin in self._signals if name in provided(plugin).values]

    def _answer(self, use: Use) -> None:
        plugin, place = use
        given = GIVEN | GIVEN_ONLY.get(place, frozenset())
        for name, default in plugin.reads(place).items():
            if name in given:
                continue
            provider = self._choose(use, name)
            if provider is not None:
                self._wires.chosen[plugin.name, place, name] = provider
                self._visit(provider)
            elif default is Parameter.empty and (plugin, name) not in self._wires.missing:
                self._wires.missing.append((plugin, name))

    def _visit(self, signal: Plugin) -> None:
        if signal.name in self._path:
            cycle = [*self._path[self._path.index(signal.name) :], signal.name]
            path = self._roster.entries[signal.name].path
            raise ConfigError(path, f"signals read each other in a circle: {' → '.join(cycle)}; break it")
        if signal.name in self._done:
            return
        self._path.append(signal.name)
        self._answer((signal, "signal"))
        self._path.pop()
        self._done.add(signal.name)
        self._wires.order.append(signal)

    def _choose(self, use: Use, name: str) -> Plugin | None:
        reader, place = use
        # A signal may refine another one of the same name, but does not read its own answer.
        providers = [one for one in self._providers(name) if (one, place) != (reader, "signal")]
        setting, wanted = self._named(reader, name, providers)
        for provider in providers:
            if provider.name == wanted:
                return provider
        # To name a default provider that goes by another name here is to name none.
        if wanted and wanted not in default_types(self._roster.catalogue, name):
            names = [provider.name for provider in providers]
            path = f"{self._roster.entries[reader.name].path}.parameters.{setting}"
            raise ConfigError(path, f"no plug-in named {wanted!r} provides {name}; {choices(wanted, names)}")
        found = usual(providers)
        if found is None and providers:
            names = [provider.name for provider in providers]
            remedy = f"say which with the parameter {setting}" if setting else "keep one of them"
            path = self._roster.entries[reader.name].path
            raise ConfigError(path, f"{reader.name} reads {name}, which {' and '.join(names)} provide; {remedy}")
        return found

    def _named(self, reader: Plugin, name: str, providers: Sequence[Plugin]) -> tuple[str, str]:
        """The setting with which the reader may name its provider, and what it says; "" = none."""
        kinds = [provider.type for provider in providers] or default_types(self._roster.catalogue, name).values()
        chosen_by = {kind.provides.chosen_by for kind in kinds if kind.provides}
        for setting in reader.type.settings:
            if setting.name in chosen_by:
                return setting.camel, str(reader.settings.get(setting.name, setting.default) or "")
        return "", ""


def default_types(catalogue: Catalogue, name: str) -> dict[str, PluginType]:
    """Types the picker may add by itself to provide `name`."""
    found = {}
    for type_name in catalogue.names:
        try:
            kind = catalogue.find(type_name)
        except PluginError:
            # Somebody's broken plug-in, which nobody configured.
            continue
        deprecated = getattr(kind.target, "deprecated", "")
        if kind.provides and kind.provides.by_default and name in kind.provides.values and not deprecated:
            found[type_name] = kind
    return found


def _add_default(roster: Roster, reader: Plugin, name: str) -> None:
    types = default_types(roster.catalogue, name)
    path = roster.entries[reader.name].path
    if not types:
        known = {signal for plugin in roster.plugins.values() for signal in provided(plugin).values}
        raise ConfigError(path, f"{reader.name} reads {name!r}, which no plug-in provides; {choices(name, known)}")
    type_name = next(iter(types))
    taken = roster.entries.get(type_name)
    if taken is None:
        roster.add(Entry(type_name, type_name, path, why=f"{reader.name} reads {name}"))
    elif taken.type != type_name:
        raise ConfigError(taken.path, f"the name {type_name!r} is needed for the provider of {name}; choose another")
