"""The section flowControl: the queue's rules and the detector of saturation, which acts with and without the queue."""

from __future__ import annotations

from collections import Counter

from epp.config.errors import ConfigError
from epp.config.roster import Roster
from epp.config.schema import Band, Config, FlowControl
from epp.flow.settings import BandRules, FlowRules
from epp.plugins import Plugin

DETECTOR = "ledger-detector"
"""Where flowControl.saturationDetector names none."""
ADDED = ("utilization-detector", "concurrency-detector", DETECTOR)
"""May be named without an entry in `plugins`."""
FAIRNESS, ORDERING, LIMIT = "global-strict-fairness-policy", "fcfs-ordering-policy", "static-usage-limit-policy"
KINDS = {
    "detector": "detects no saturation",
    "fairness": "is no fairness policy",
    "ordering": "is no ordering policy",
    "usage_limit": "is no usage limit policy",
}
READS = frozenset({"endpoints", "now"})
"""What a detector may read: it looks at the pool, not at a request."""
DEFAULT_TTL_S = 60.0
MAX_BYTES, MAX_REQUESTS = 1_000_000_000, 5000
"""Of a band that says nothing, or 0."""
COUNTS_INFLIGHT = ("concurrency-detector", DETECTOR)
GRACE_S, READ_GRACE_S = 0.01, 2.3
"""From the end of an evicted request until the detector sees it: at once, or with the next readings."""


def detector(config: Config, roster: Roster) -> Plugin | None:
    """The plug-in that says how full the pool is; None where not even the default is installed."""
    path = "flowControl.saturationDetector.pluginRef"
    section = config.flow_control
    ref = section.saturation_detector if section is not None else None
    if ref is None:
        if DETECTOR not in roster.catalogue:
            return None
        # No entry of `plugins`: a configuration that says nothing of this reads as the llm-d router would write it.
        return roster.catalogue.build(DETECTOR, DETECTOR, {}, "flowControl.saturationDetector")
    if ref.plugin_ref in ADDED and ref.plugin_ref not in roster.entries:
        roster.ensure(ref.plugin_ref, path, "flowControl.saturationDetector names it")
    plugin = _plugin(roster, ref.plugin_ref, path, "detector")
    if others := sorted(set(plugin.reads("detector")) - READS):
        raise ConfigError(path, f"{ref.plugin_ref!r} reads {', '.join(others)}; a detector may read endpoints and now")
    return plugin


def flow(config: Config, roster: Roster, detects: Plugin | None, *, is_open: bool) -> FlowRules | None:
    """The rules of the queue; None with the gate shut, and then a warning if the section asks for one."""
    section = config.flow_control or FlowControl()
    if not is_open:
        if section != FlowControl(saturation_detector=section.saturation_detector):
            roster.warnings.append(
                "flowControl: has no effect, as the feature gate flowControl is off; add flowControl to featureGates"
            )
        return None
    _check_bands(section)
    ttl_s = DEFAULT_TTL_S if section.default_request_ttl is None else float(section.default_request_ttl)
    empty_s = ttl_s if section.no_endpoint_request_ttl is None else float(section.no_endpoint_request_ttl)
    default = section.default_priority_band or Band()
    negative = section.default_negative_priority_band
    return FlowRules(
        _policy(roster, section.usage_limit_policy_plugin_ref, LIMIT, "usageLimitPolicyPluginRef", "usage_limit"),
        _band(roster, default, "defaultPriorityBand"),
        None if negative is None else _band(roster, negative, "defaultNegativePriorityBand"),
        tuple(_band(roster, band, f"priorityBands[{n}]") for n, band in enumerate(section.priority_bands)),
        max_bytes=int(section.max_bytes),
        max_requests=int(section.max_requests),
        ttl_s=ttl_s,
        empty_ttl_s=empty_s,
        evict=section.enable_eviction,
        evict_grace_s=GRACE_S if detects is not None and detects.type.type in COUNTS_INFLIGHT else READ_GRACE_S,
    )


def _check_bands(section: FlowControl) -> None:
    for priority, count in Counter(band.priority for band in section.priority_bands).items():
        if count > 1:
            twice = [n for n, band in enumerate(section.priority_bands) if band.priority == priority]
            path = f"flowControl.priorityBands[{twice[1]}].priority"
            raise ConfigError(path, f"{priority} is the priority of priorityBands[{twice[0]}] too; merge the two bands")


def _band(roster: Roster, band: Band, where: str) -> BandRules:
    return BandRules(
        _policy(roster, band.fairness_policy_ref, FAIRNESS, f"{where}.fairnessPolicyRef", "fairness"),
        _policy(roster, band.ordering_policy_ref, ORDERING, f"{where}.orderingPolicyRef", "ordering"),
        band.priority,
        int(band.max_bytes) or MAX_BYTES,
        int(band.max_requests) or MAX_REQUESTS,
    )


def _policy(roster: Roster, ref: str, default: str, where: str, place: str) -> Plugin:
    path = f"flowControl.{where}"
    if not ref:
        return roster.plugins[roster.ensure(default, path, f"{path} names no other").name]
    return _plugin(roster, ref, path, place)


def _plugin(roster: Roster, ref: str, path: str, place: str) -> Plugin:
    entry = roster.named(ref, path)
    plugin = roster.plugins.get(entry.name)
    if plugin is None or place not in plugin.places:
        raise ConfigError(path, f"{entry.name!r} is of type {entry.type}, which {KINDS[place]}")
    return plugin
