"""The configuration as it is used: every default written out, what was added marked by a comment; as YAML.

Reading it again gives the same configuration, here and, as far as it knows the types, in the llm-d router.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from epp.config.gates import RETIRED
from epp.config.profiles import Draft
from epp.config.roster import Entry, Roster, settings_of_struct
from epp.config.schema import Amount, Config, Seconds
from epp.config.sources import Feed
from epp.config.spelling import API_VERSION, KIND
from epp.plugins import Plugin
from epp.settings import Setting

Plain = dict[str, Any]  # a YAML mapping


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration as plain values, and remarks on some of them."""

    value: Plain
    remarks: Mapping[str, str] = field(default_factory=dict)
    """Path such as `plugins[3]` → comment on the line before it."""

    def yaml(self) -> str:
        return "\n".join(_block(self.value, "", self.remarks)) + "\n"


def resolve(
    config: Config, roster: Roster, drafts: Sequence[Draft], feed: Feed, parsers: Sequence[Entry], *, queues: bool
) -> Resolved:
    """What `config` came to."""
    remarks: dict[str, str] = {}
    value: Plain = {"apiVersion": API_VERSION, "kind": KIND}
    gates = [gate for gate in config.feature_gates if gate.partition("=")[0] not in RETIRED]
    if gates:
        value["featureGates"] = gates
    value["plugins"] = [_entry(entry, roster) for entry in roster.entries.values()]
    value["schedulingProfiles"] = [
        _profile(draft, f"schedulingProfiles[{n}]", remarks) for n, draft in enumerate(drafts)
    ]
    value["dataLayer"] = _data_layer(config, feed)
    if config.flow_control is not None:
        value["flowControl"] = msgspec.to_builtins(config.flow_control, enc_hook=_scalar)
        if not queues:
            remarks["flowControl"] = "of this, saturationDetector alone has an effect: the gate flowControl is off"
    value["requestHandler"] = {"parsers": [{"pluginRef": entry.name} for entry in parsers]}
    for number, entry in enumerate(roster.entries.values()):
        why = f"added: {entry.why}" if entry.why else "without effect" if entry.name in roster.idle else ""
        if why:
            remarks[f"plugins[{number}]"] = why
    return Resolved(value, remarks)


def _scalar(value: object) -> object:
    if isinstance(value, Seconds):
        return f"{value:g}s"
    return int(value) if isinstance(value, Amount) else str(value)


def _entry(entry: Entry, roster: Roster) -> Plain:
    found: Plain = {"type": entry.type, "name": entry.name}
    parameters = _parameters(entry, roster)
    return {**found, "parameters": parameters} if parameters else found


def _parameters(entry: Entry, roster: Roster) -> Plain:
    if entry.name in roster.idle:
        return dict(entry.parameters)
    if entry.name in roster.feeds:
        settings = roster.feeds[entry.name]
        return _written([(s, getattr(settings, s.name)) for s in settings_of_struct(type(settings))])
    plugin = roster.plugins[entry.name]
    return _written([(setting, _value(plugin, setting)) for setting in plugin.type.settings])


def _value(plugin: Plugin, setting: Setting) -> object:
    value: object = plugin.settings.get(setting.name, setting.default)
    return value


def _written(values: Iterable[tuple[Setting, object]]) -> Plain:
    """As plain values, those that say nothing left out: None, and what is empty where the default is so too."""
    # Through JSON, so that what is compared and printed is what a file can say.
    plain = [(setting, msgspec.json.decode(msgspec.json.encode(value, enc_hook=str))) for setting, value in values]
    return {
        setting.camel: value
        for setting, value in plain
        if value is not None and (value not in ("", [], {}) or _meant(setting))
    }


def _meant(setting: Setting) -> bool:
    """Whether an empty value of it says something: without it another would hold, or none."""
    return setting.required or (setting.default is not msgspec.NODEFAULT and bool(setting.default))


def _profile(draft: Draft, path: str, remarks: dict[str, str]) -> Plain:
    members = []
    for number, seat in enumerate(draft.seats):
        weight = {"weight": seat.weight} if "scorer" in seat.plugin.places else {}
        members.append({"pluginRef": seat.plugin.name, **weight})
        if seat.why:
            remarks[f"{path}.plugins[{number}]"] = f"added: {seat.why}"
    if draft.why:
        remarks[path] = f"added: {draft.why}"
    return {"name": draft.name, "plugins": members}


def _data_layer(config: Config, feed: Feed) -> Plain:
    found: Plain = {}
    if not config.data_layer.inject_defaults:
        found["injectDefaults"] = False
    if feed.source and feed.extractor:
        found["sources"] = [{"pluginRef": feed.source.name, "extractors": [{"pluginRef": feed.extractor.name}]}]
    if feed.discovery:
        found["discovery"] = {"pluginRef": feed.discovery.name}
    return found


def _block(value: Mapping[str, Any], path: str, remarks: Mapping[str, str]) -> Iterator[str]:
    """The lines of a mapping, its keys at the margin."""
    for name, item in value.items():
        inner = f"{path}.{name}" if path else name
        if inner in remarks:
            yield f"# {remarks[inner]}"
        if item and isinstance(item, dict):
            yield f"{_text(name)}:"
            yield from (f"  {line}" for line in _block(item, inner, remarks))
        elif item and isinstance(item, list):
            yield f"{_text(name)}:"
            yield from _items(item, inner, remarks)
        else:
            yield f"{_text(name)}: {_text(item)}"


def _items(values: Sequence[Any], path: str, remarks: Mapping[str, str]) -> Iterator[str]:
    """The lines of a list, its dashes at the margin."""
    for number, item in enumerate(values):
        inner = f"{path}[{number}]"
        if inner in remarks:
            yield f"# {remarks[inner]}"
        if item and isinstance(item, dict | list):
            first, *rest = _block(item, inner, remarks) if isinstance(item, dict) else _items(item, inner, remarks)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
        else:
            yield f"- {_text(item)}"


BARE = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def _text(value: object) -> str:
    """A scalar, an empty list or an empty mapping on one line."""
    if not isinstance(value, str):
        return json.dumps(value)
    if BARE.fullmatch(value) and value.lower() not in NOT_TEXT:
        return value
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=sys.maxsize)
    return quoted.rstrip("\n")
