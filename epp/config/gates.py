"""featureGates: which there are, and which were once."""

from __future__ import annotations

from collections.abc import Sequence

from epp.config.errors import ConfigError, choices
from epp.options_values import switch

KNOWN = {"flowControl": False, "haPopulateNonLeaderDatastore": True}
"""Gate → open unless the file says otherwise."""
RETIRED = {
    "dataLayer": "the data layer is always on",
    "prepareDataPlugins": "signals are always computed before profiles run",
    "enableLegacyMetrics": "engines are read as core-metrics-extractor says",
}
"""Gate of older releases → why it has no effect."""


def gates(entries: Sequence[str]) -> tuple[dict[str, bool], list[str]]:
    """(gate → open, warnings); ConfigError names an unknown gate or a bad value."""
    found, warnings = dict(KNOWN), []
    for number, entry in enumerate(entries):
        path = f"featureGates[{number}]"
        name, equals, text = entry.partition("=")
        if name in RETIRED:
            warnings.append(f"{path}: {name} is no gate any more and ignored: {RETIRED[name]}")
            continue
        if name not in KNOWN:
            raise ConfigError(path, f"unknown feature gate {name!r}; {choices(name, KNOWN)}")
        found[name] = _open(path, name, text) if equals else True
    return found, warnings


def _open(path: str, name: str, text: str) -> bool:
    try:
        return switch(text)
    except ValueError:
        raise ConfigError(path, f"{name}={text}: expected {name}=true or {name}=false") from None
