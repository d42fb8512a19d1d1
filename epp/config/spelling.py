"""Old spellings → the ones of llm-d.ai/v1alpha1, with one warning each; those of unclear meaning are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from epp.config.errors import ConfigError, choices
from epp.settings import plain

API_VERSION = "llm-d.ai/v1alpha1"
OLD_API_VERSION = "inference.networking.x-k8s.io/v1alpha1"
KIND = "EndpointPickerConfig"

RENAMED = {
    "model-server-protocol-metrics": "core-metrics-extractor",
    "kv-cache-scorer": "kv-cache-utilization-scorer",
}
"""Old plug-in type → its name today."""
THRESHOLDS = ("queueDepthThreshold", "kvCacheUtilThreshold", "metricsStalenessThreshold")
PREFIX_SIGNAL = "approx-prefix-cache-producer"
MOVED = frozenset({"lrucapacityperserver", "autotune", "blocksizetokens", "maxprefixtokenstomatch"})
"""Parameters prefix-cache-scorer had once that its signal has now; in plain spelling."""
IN_CHARACTERS = frozenset({"hashblocksize", "blocksize", "maxprefixblockstomatch"})
"""Those that counted characters. Blocks are counted in tokens now, 64 at least."""
RETIRED = {"prefix-cache-scorer": MOVED | IN_CHARACTERS, PREFIX_SIGNAL: frozenset({"hashblocksize"})}
"""Plug-in type → parameters it has no more."""

Raw = dict[str, Any]  # a file as read, not yet typed


def modern(raw: object) -> tuple[Raw, list[str]]:
    """A copy of the file in current spelling, and the warnings. What is not of the right type is left to decoding."""
    if not isinstance(raw, dict):
        raise ConfigError("", f"an {KIND} is a mapping with apiVersion and kind, not {type(raw).__name__}")
    config = dict(raw)
    if isinstance(raw.get("plugins"), list):
        config["plugins"] = list(raw["plugins"])
    warnings: list[str] = []
    for step in (_version, _data, _detector, _parser, _types, _prefix):
        step(config, warnings.append)
    return config, warnings


Warn = Callable[[str], None]


def _version(config: Raw, warn: Warn) -> None:
    version, kind = config.get("apiVersion"), config.get("kind")
    if kind != KIND:
        raise ConfigError("kind", f"{'missing' if kind is None else f'got {kind!r}'}; write kind: {KIND}")
    if version == OLD_API_VERSION:
        warn(f"apiVersion: {OLD_API_VERSION} is deprecated; write {API_VERSION}")
        config["apiVersion"] = API_VERSION
    elif version != API_VERSION:
        got = "missing" if version is None else f"got {version!r}"
        raise ConfigError("apiVersion", f"{got}; write apiVersion: {API_VERSION}")


def _data(config: Raw, warn: Warn) -> None:
    if "data" not in config:
        return
    if config.get("dataLayer") is not None:
        raise ConfigError("data", "this is the old name of dataLayer, which is there too; merge them")
    config["dataLayer"] = config.pop("data")
    warn("data: this is the old name of dataLayer; write that")


def _detector(config: Raw, warn: Warn) -> None:
    """saturationDetector at the top: a reference, or (before it was a plug-in) thresholds."""
    old = config.pop("saturationDetector", None)
    if old is None:
        return
    if not isinstance(old, dict):
        raise ConfigError("saturationDetector", f"expected a mapping with pluginRef, got {old!r}")
    thresholds = {key: old[key] for key in THRESHOLDS if key in old}
    if unknown := set(old) - set(THRESHOLDS) - {"pluginRef"}:
        name = min(unknown)
        raise ConfigError(f"saturationDetector.{name}", f"unknown key; {choices(name, ('pluginRef', *THRESHOLDS))}")
    if thresholds and "pluginRef" in old:
        raise ConfigError(
            "saturationDetector", "has thresholds and a pluginRef; write them as the plug-in's parameters"
        )
    if thresholds:
        warn("saturationDetector: thresholds are parameters of the plug-in type utilization-detector; write them there")
        _add(config, {"type": "utilization-detector", "parameters": thresholds})
        return
    warn("saturationDetector: this belongs under flowControl; write it there")
    flow = config.get("flowControl") or {}
    if isinstance(flow, dict) and flow.get("saturationDetector") is None:
        config["flowControl"] = {**flow, "saturationDetector": old}


def _parser(config: Raw, warn: Warn) -> None:
    old = config.pop("parser", None)
    if old is None:
        return
    warn("parser: write it as the first of requestHandler.parsers")
    handler = config.get("requestHandler") or {}
    if isinstance(handler, dict) and not handler.get("parsers"):
        config["requestHandler"] = {**handler, "parsers": [old]}


def _entries(config: Raw) -> list[tuple[int, Raw]]:
    entries = config.get("plugins")
    return [(i, e) for i, e in enumerate(entries) if isinstance(e, dict)] if isinstance(entries, list) else []


def _add(config: Raw, entry: Raw) -> bool:
    """Add a plug-in unless there is one of its type; was it added?"""
    entries = config.get("plugins") or []
    if not isinstance(entries, list) or any(other.get("type") == entry["type"] for _, other in _entries(config)):
        return False
    config["plugins"] = [*entries, entry]
    return True


def _types(config: Raw, warn: Warn) -> None:
    """Plug-in types that were renamed keep the old word as their name, since others refer to them by it."""
    for number, entry in _entries(config):
        old = entry.get("type")
        if isinstance(old, str) and old in RENAMED:
            config["plugins"][number] = {**entry, "type": RENAMED[old], "name": entry.get("name") or old}
            warn(f"plugins[{number}].type: {old} is the old name of {RENAMED[old]}; write that")


def _prefix(config: Raw, warn: Warn) -> None:
    """Parameters of the prefix index moved from the scorer to the signal it reads."""
    for number, entry in _entries(config):
        retired = RETIRED.get(str(entry.get("type")), frozenset())
        parameters = entry.get("parameters")
        if not isinstance(parameters, dict) or not any(plain(key) in retired for key in parameters):
            continue
        kept = {key: value for key, value in parameters.items() if plain(key) not in retired}
        config["plugins"][number] = {**entry, "parameters": kept}
        moved = {key: value for key, value in parameters.items() if plain(key) in retired & MOVED}
        if moved and not _add(config, {"type": PREFIX_SIGNAL, "parameters": moved}):
            moved = {}
        said = [f"{', '.join(moved)}: taken as a parameter of {PREFIX_SIGNAL}; write it there"] if moved else []
        if ignored := [key for key in parameters if key not in kept and key not in moved]:
            said += [f"{', '.join(ignored)}: ignored; see blockSizeTokens of {PREFIX_SIGNAL}, which counts tokens"]
        warn(f"plugins[{number}].parameters: {'; '.join(said)}")
