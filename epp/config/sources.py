"""dataLayer: what is scraped, how its pages are read, and where endpoints are discovered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from epp.config.errors import ConfigError
from epp.config.roster import Entry, Roster, settings_of_struct
from epp.config.schema import DataLayer, Ref
from epp.feeds import FeedError
from epp.feeds.engineconfig import CoreMetricsExtractor, EngineConfig
from epp.feeds.engines import Engines, engines
from epp.feeds.file import FileDiscovery
from epp.feeds.pace import seconds
from epp.feeds.scrape import MetricsDataSource
from epp.settings import PluginError, decode, plain

SOURCE, EXTRACTOR, DISCOVERY = "metrics-data-source", "core-metrics-extractor", "file-discovery"
VLLM = EngineConfig(
    name="vllm",
    queued_requests_spec="vllm:num_requests_waiting",
    running_requests_spec="vllm:num_requests_running",
    kv_usage_spec="vllm:kv_cache_usage_perc",
    lora_spec="vllm:lora_requests_info",
    cache_info_spec="vllm:cache_config_info",
    cache_block_size_label_name="block_size",
    cache_num_blocks_label_name="num_gpu_blocks",
)
"""What retired flags such as --total-queued-requests-metric change a part of."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What retired flags say; the file goes before them."""

    source: Mapping[str, str | int | bool] = field(default_factory=dict)
    """Parameters of metrics-data-source."""
    engine: Mapping[str, str] = field(default_factory=dict)
    """Metric specs of the engine vllm, by their names in engineConfigs."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What to scrape and how to read it."""

    source: MetricsDataSource
    engines: Engines


@dataclass(frozen=True, slots=True)
class Feed:
    """Which entries the data layer uses."""

    source: Entry | None = None
    extractor: Entry | None = None
    discovery: Entry | None = None


def feed(layer: DataLayer, roster: Roster) -> Feed:
    """The entries that dataLayer names, and those added where it names none."""
    if layer.peer_discovery or layer.cross_replica_syncer_plugin_ref:
        key = "peerDiscovery" if layer.peer_discovery else "crossReplicaSyncerPluginRef"
        raise ConfigError(f"dataLayer.{key}", "is known upstream but nobody implements it; remove it")
    discovery = (
        _entry(roster, layer.discovery.plugin_ref, "dataLayer.discovery", DISCOVERY) if layer.discovery else None
    )
    source, extractor = _source_and_extractor(layer, roster)
    return Feed(source, extractor, discovery)


def _source_and_extractor(layer: DataLayer, roster: Roster) -> tuple[Entry | None, Entry | None]:
    found = []
    for number, given in enumerate(layer.sources):
        path = f"dataLayer.sources[{number}]"
        if source := _entry(roster, given.plugin_ref, path, SOURCE):
            found.append((source, given.extractors, path))
    if len(found) > 1:
        raise ConfigError(found[1][2], "a second source of metrics; one is offered here, keep one")
    for source, extractors, path in found:
        return source, _extractor(roster, extractors, f"{path}.extractors")
    if layer.inject_defaults:
        why = "engines are read unless dataLayer.injectDefaults is false"
        return roster.ensure(SOURCE, "dataLayer", why), roster.ensure(EXTRACTOR, "dataLayer", why)
    roster.warnings.append("dataLayer: no source of metrics and injectDefaults is false: engines are not read")
    return None, None


def _extractor(roster: Roster, given: Sequence[Ref], path: str) -> Entry:
    found = [_entry(roster, ref.plugin_ref, f"{path}[{number}]", EXTRACTOR) for number, ref in enumerate(given)]
    entries = [entry for entry in found if entry]
    if len(entries) > 1:
        raise ConfigError(path, f"two of type {EXTRACTOR}; keep one")
    return entries[0] if entries else roster.ensure(EXTRACTOR, path, "the source has no extractor")


def _entry(roster: Roster, name: str, path: str, kind: str) -> Entry | None:
    """The entry a reference means; added if it is the type itself; None for types that are idle here."""
    if name == kind and kind not in roster.entries:
        return roster.ensure(kind, path, "dataLayer names it")
    path = f"{path}.pluginRef"
    entry = roster.named(name, path)
    if entry.name in roster.idle:
        return None
    if entry.type != kind:
        raise ConfigError(path, f"{name!r} is of type {entry.type}; it must be of type {kind}")
    return entry


def metrics(feed: Feed, roster: Roster, overrides: Overrides) -> Metrics | None:
    """The settings of scraping, with what retired flags add to them; None = nothing is scraped."""
    if feed.source is None or feed.extractor is None:
        return None
    source = roster.feeds[feed.source.name] = _source(feed.source, roster, overrides)
    extractor = roster.feeds[feed.extractor.name] = _engines(feed.extractor, roster, overrides)
    path = f"{feed.extractor.path}.parameters"
    try:
        return Metrics(source, engines(extractor, producer=feed.extractor.name))
    except FeedError as error:
        raise ConfigError(path, f"{EXTRACTOR}: {error}") from None


def _source(entry: Entry, roster: Roster, overrides: Overrides) -> MetricsDataSource:
    source = roster.feed(entry, MetricsDataSource)
    given = {plain(key) for key in entry.parameters}
    both = [key for key in overrides.source if plain(key) in given]
    if both:
        roster.warnings.append(f"{entry.path}.parameters: {', '.join(both)}: this counts, not the retired flag")
    flags = {key: value for key, value in overrides.source.items() if key not in both}
    source = msgspec.structs.replace(source, **_from_flags(MetricsDataSource, flags))
    if not re.fullmatch(r"[!-\"$-~]*", source.path):
        rule = f"{source.path!r} has a space, a control character, # or letters beyond ASCII; write it as in a URL"
        raise ConfigError(f"{entry.path}.parameters.path", f"{SOURCE}: {rule}, such as /metrics")
    if source.interval:
        try:
            seconds(source.interval)
        except FeedError as error:
            raise ConfigError(f"{entry.path}.parameters.interval", f"{SOURCE}: {error}") from None
    return source


def _engines(entry: Entry, roster: Roster, overrides: Overrides) -> CoreMetricsExtractor:
    extractor = roster.feed(entry, CoreMetricsExtractor)
    if not overrides.engine:
        return extractor
    named = {engine.name for engine in extractor.engine_configs}
    if VLLM.name in named or extractor.default_engine != VLLM.name:
        roster.warnings.append(f"{entry.path}.parameters: its engines count, not the retired flags")
        return extractor
    engine = msgspec.structs.replace(VLLM, **_from_flags(EngineConfig, overrides.engine))
    return msgspec.structs.replace(extractor, engine_configs=(*extractor.engine_configs, engine))


def _from_flags(kind: type[msgspec.Struct], flags: Mapping[str, object]) -> dict[str, Any]:
    try:
        return decode("retired flags", settings_of_struct(kind), flags)
    except PluginError as error:
        raise ConfigError("", str(error)) from None


def files(feed: Feed, roster: Roster) -> FileDiscovery | None:
    """The endpoints file; None = endpoints come from elsewhere."""
    return None if feed.discovery is None else roster.feed(feed.discovery, FileDiscovery)
