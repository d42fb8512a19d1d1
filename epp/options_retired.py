"""Flags that older manifests still carry, and the configuration that took their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epp import options_values as of

SOURCE = "metrics-data-source"
ENGINE = "core-metrics-extractor"


@dataclass(frozen=True, slots=True)
class Retired:
    """A flag that became parameter `key` of `plugin`."""

    kind: of.Kind
    plugin: str
    key: str


RETIRED: Mapping[str, Retired] = {
    "model-server-metrics-scheme": Retired(of.one_of("http", "https"), SOURCE, "scheme"),
    "model-server-metrics-path": Retired(of.TEXT, SOURCE, "path"),
    "model-server-metrics-port": Retired(of.PORT, SOURCE, "port"),
    "model-server-metrics-https-insecure-skip-verify": Retired(of.SWITCH, SOURCE, "insecureSkipVerify"),
    "total-queued-requests-metric": Retired(of.TEXT, ENGINE, "queuedRequestsSpec"),
    "total-running-requests-metric": Retired(of.TEXT, ENGINE, "runningRequestsSpec"),
    "kv-cache-usage-percentage-metric": Retired(of.TEXT, ENGINE, "kvUsageSpec"),
    "lora-info-metric": Retired(of.TEXT, ENGINE, "loraSpec"),
    "cache-info-metric": Retired(of.TEXT, ENGINE, "cacheInfoSpec"),
}


@dataclass(slots=True)
class Replacements:
    """What retired flags stand for today, and a warning for each."""

    source: dict[str, str | int | bool] = field(default_factory=dict)
    engine: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def replacements(given: Mapping[str, Any]) -> Replacements:
    """`given`: retired flag → its value."""
    found = Replacements()
    for name, value in given.items():
        retired = RETIRED[name]
        place = f"parameter {retired.key} of {retired.plugin}"
        if retired.plugin == ENGINE:
            place = f"{retired.key} in engineConfigs of {ENGINE}"
            found.engine[retired.key] = value
        elif value in {"", 0} and value is not False:
            # Their old defaults: no path or port of its own.
            found.warnings.append(f"--{name} is retired and empty: ignored; remove it")
            continue
        else:
            found.source[retired.key] = value
        found.warnings.append(f"--{name} is retired: taken as {place}; write it there")
    return found
