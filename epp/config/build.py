"""From the text of a configuration to everything that decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from epp.bodies import Parsers
from epp.config import yaml
from epp.config.decode import decode
from epp.config.defaults import PARSERS, TEXT
from epp.config.errors import ConfigError
from epp.config.flow import detector, flow
from epp.config.gates import gates
from epp.config.heirs import Heir
from epp.config.profiles import VOTING, Draft, drafts, handler
from epp.config.resolved import Resolved, resolve
from epp.config.roster import Entry, Roster, entries
from epp.config.schema import Config
from epp.config.sources import Metrics, Overrides, feed, files, metrics
from epp.config.spelling import modern
from epp.config.wiring import Use, Wires, provided, wire
from epp.feeds.file import FileDiscovery
from epp.flow.rehearsal import rehearse
from epp.flow.settings import FlowRules
from epp.plan import Setup
from epp.plugins import HOOKS, Catalogue, Plugin
from epp.scheduler import Bound, Profile
from epp.settings import PluginError
from epp.testing import check


@dataclass(frozen=True, slots=True, eq=False)
class Built:
    """A configuration, ready to serve."""

    setup: Setup
    parsers: Parsers
    hooks: tuple[Plugin, ...]
    """Plug-ins with methods of HOOKS, in order of declaration, whether or not a profile names them."""
    metrics: Metrics | None
    """What to scrape; None = nothing."""
    discovery: FileDiscovery | None
    """The endpoints file; None = endpoints come from Kubernetes."""
    warnings: tuple[str, ...]
    resolved: Resolved
    flow: FlowRules | None = None
    """The queue; None with the gate flowControl shut."""
    detector: Bound | None = None
    """Says how full each endpoint is; None = nobody does."""
    heirs: tuple[Heir, ...] = ()
    """Plug-ins that take the place of another one: `take_over` before this serves."""


NO_OVERRIDES = Overrides()
NOBODY: Mapping[str, Plugin] = MappingProxyType({})
READ_BY_PICKER = ("inflight_charge", "cached_blocks")
"""Signals that the route itself reads: what to charge the ledger, and what `Prefer: if-available` asks."""


def load(
    text: str | None,
    *,
    catalogue: Catalogue,
    experimental: bool = False,
    overrides: Overrides = NO_OVERRIDES,
    also: Sequence[str] = READ_BY_PICKER,
    inherit: Mapping[str, Plugin] = NOBODY,
) -> Built:
    """Everything a configuration text stands for; no text = the default. Raises ConfigError.

    `experimental` admits alpha types. `also` names signals computed wherever somebody provides them. `inherit` are the
    plug-ins in service by name: one with the same code and settings goes on, with all it remembers, others get heirs.
    Those in service are not called.
    """
    document = yaml.read(text or "")
    if document.value is None:
        document = yaml.read(TEXT)
    try:
        raw, warnings = modern(document.value)
        config = decode(raw)
        built = _build(config, Roster(catalogue, experimental=experimental), overrides, also)
        if inherit:
            # What was just checked was made for that; the check calls plug-ins on requests that never were.
            built = _build(config, Roster(catalogue, experimental=experimental, inherit=inherit), overrides, also)
    except ConfigError as error:
        if error.path and not error.line:
            raise ConfigError(error.path, error.problem, document.line(error.path)) from error
        raise
    return replace(built, warnings=(*warnings, *built.warnings))


def _build(config: Config, roster: Roster, overrides: Overrides, also: Sequence[str]) -> Built:
    opened, warnings = gates(config.feature_gates)
    roster.add_all(entries(config))
    profiles = drafts(config, roster)
    decides = handler(profiles, roster)
    detects = detector(config, roster)
    queue = flow(config, roster, detects, is_open=opened["flowControl"])
    sources = feed(config.data_layer, roster)
    scraping = metrics(sources, roster, overrides)
    parsing = _parsers(config, roster)
    uses = [*_uses(roster, profiles, decides), *([] if detects is None else [(detects, "detector")])]
    wires = wire(roster, uses, also)
    if not roster.inherit:
        _check(roster, uses, wires)
    parsers = Parsers(roster.plugins[entry.name].instance for entry in parsing)
    return Built(
        setup=_setup(roster, profiles, decides, wires),
        parsers=parsers,
        hooks=tuple(plugin for plugin in roster.plugins.values() if any(plugin.hook(name) for name in HOOKS)),
        metrics=scraping,
        discovery=files(sources, roster),
        warnings=(*warnings, *roster.warnings, *parsers.warnings),
        resolved=resolve(config, roster, profiles, sources, parsing, queues=queue is not None),
        flow=queue,
        detector=None if detects is None else wires.bound((detects, "detector")),
        heirs=tuple(roster.heirs),
    )


def _parsers(config: Config, roster: Roster) -> list[Entry]:
    """The parsers' entries in order; a reference that names no plug-in is taken as a type."""
    given = [
        (ref.plugin_ref, f"requestHandler.parsers[{number}].pluginRef", "requestHandler.parsers names it")
        for number, ref in enumerate(config.request_handler.parsers)
    ] or [(name, "requestHandler.parsers", "no parser was configured") for name in PARSERS]
    found = []
    for name, path, why in given:
        if name not in roster.entries:
            roster.add(Entry(name, name, path, why=why))
        entry = roster.entries[name]
        plugin = roster.plugins.get(name)
        if plugin is None or "parser" not in plugin.places:
            raise ConfigError(path, f"{name!r} is of type {entry.type}, which is no parser")
        found.append(entry)
    return found


def _uses(roster: Roster, profiles: Sequence[Draft], decides: Plugin) -> list[Use]:
    """Every plug-in in every place it works in, signals apart."""
    seats = [(seat.plugin, place) for draft in profiles for place in VOTING for seat in draft.seated(place)]
    by_place = [(plugin, place) for plugin in roster.plugins.values() for place in ("screener", "admitter")]
    return [*seats, *(use for use in by_place if use[1] in use[0].places), (decides, "profile_handler")]


def _check(roster: Roster, uses: Sequence[Use], wires: Wires) -> None:
    """Each plug-in in use keeps the contract on made-up endpoints, or ConfigError says which rule it breaks."""
    defaults = {name: default for plugin in wires.order for name, default in provided(plugin).values.items()}
    for plugin in {plugin.name: plugin for plugin in (*wires.order, *(use[0] for use in uses))}.values():
        try:
            check(plugin, defaults)
        except PluginError as error:
            raise ConfigError(roster.entries[plugin.name].path, str(error)) from error
    for plugin in roster.plugins.values():
        try:
            rehearse(plugin)
        except PluginError as error:
            raise ConfigError(roster.entries[plugin.name].path, str(error)) from error


def _setup(roster: Roster, profiles: Sequence[Draft], decides: Plugin, wires: Wires) -> Setup:
    def placed(place: str) -> list[Plugin]:
        return [plugin for plugin in roster.plugins.values() if place in plugin.places]

    return Setup(
        plugins=dict(roster.plugins),
        profiles={draft.name: _profile(draft, wires) for draft in profiles},
        handler=wires.bound((decides, "profile_handler")),
        primary=getattr(decides.instance, "primary", None),
        signals=tuple(wires.measured(plugin) for plugin in wires.order),
        screeners=tuple(wires.bound((plugin, "screener")) for plugin in placed("screener")),
        admitters=tuple(wires.bound((plugin, "admitter")) for plugin in placed("admitter")),
    )


def _profile(draft: Draft, wires: Wires) -> Profile:
    return Profile(
        name=draft.name,
        filters=tuple(wires.bound((seat.plugin, "filter")) for seat in draft.seated("filter")),
        scorers=tuple((wires.bound((seat.plugin, "scorer")), seat.weight) for seat in draft.seated("scorer")),
        picker=wires.bound((draft.seated("picker")[0].plugin, "picker")),
    )
