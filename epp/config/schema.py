"""EndpointPickerConfig as typed records: what may stand in the file, before defaults.

Keys, types and meanings are those of the llm-d router; keys are case-sensitive and unknown ones are errors.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Seconds(float):
    """A Go duration such as `60s` or `1m30s`, in seconds."""


class Amount(int):
    """A Kubernetes quantity such as `1Gi`, `500k` or a plain number."""


class _Section(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """How every part of the file is read."""


class Ref(_Section, frozen=True):
    """Names a plug-in of `plugins`."""

    plugin_ref: str
    """Its name."""


class PluginEntry(_Section, frozen=True):
    """One plug-in and its settings."""

    type: str = ""
    """What it is; required. `epp plugins` lists the types."""
    name: str = ""
    """What others call it, unique. Default: the type."""
    parameters: dict[str, Any] | None = None  # typed by the plug-in's own settings
    """Its settings; `epp plugins TYPE` lists them. Case and underscores in their names do not matter."""


class Member(_Section, frozen=True):
    """One plug-in's place in a profile."""

    plugin_ref: str
    """Name of a plug-in. One that is no filter, scorer or picker is ignored here, as in the llm-d router."""
    weight: float | None = None
    """Factor on a scorer's vote; default 1. Any finite number; weights are not normalised. Ignored for others."""


class SchedulingProfile(_Section, frozen=True):
    """Filters, weighted scorers and one picker that decide together. Filters run in the order given."""

    name: str = ""
    """What the profile handler calls it; required, unique."""
    plugins: tuple[Member, ...] = ()
    """Who takes part. Without a picker the fallback picker chooses."""


class MetricsSource(_Section, frozen=True):
    """A source of metrics and what reads its pages."""

    plugin_ref: str
    """Name of a plug-in of type metrics-data-source."""
    extractors: tuple[Ref, ...] = ()
    """Plug-ins of type core-metrics-extractor; default: one is added."""


class DataLayer(_Section, frozen=True):
    """Where endpoints and their readings come from."""

    inject_defaults: bool = True
    """Add metrics-data-source and core-metrics-extractor where no source is listed. Without any source every endpoint
    looks equally busy."""
    sources: tuple[MetricsSource, ...] = ()
    """What to scrape; at most one here. Default: metrics-data-source."""
    discovery: Ref | None = None
    """A plug-in of type file-discovery: endpoints are read from a file. Default: from Kubernetes."""
    peer_discovery: Ref | None = None
    """Not offered: nobody implements it."""
    cross_replica_syncer_plugin_ref: str = ""
    """Not offered: nobody implements it."""
    cross_replica_sync_interval: Seconds = Seconds(0.2)
    """Without effect, as there is no syncer. Default 200ms."""


class Band(_Section, frozen=True):
    """Limits and policies of the requests of one priority."""

    priority: int = 0
    """Higher is more important."""
    max_bytes: Amount = Amount(0)
    """Bytes queued; 0 = 1 000 000 000."""
    max_requests: Amount = Amount(0)
    """Requests queued; 0 = 5000."""
    fairness_policy_ref: str = ""
    """Default: global-strict-fairness-policy."""
    ordering_policy_ref: str = ""
    """Default: fcfs-ordering-policy."""


class FlowControl(_Section, frozen=True):
    """Who waits, how long and in which order, once the pool is full."""

    max_bytes: Amount = Amount(0)
    """Bytes queued in all; 0 = no limit."""
    max_requests: Amount = Amount(0)
    """Requests queued in all; 0 = no limit."""
    default_request_ttl: Seconds | None = msgspec.field(default=None, name="defaultRequestTTL")
    """How long a request may wait; 0s = for ever. Default 60s."""
    no_endpoint_request_ttl: Seconds | None = msgspec.field(default=None, name="noEndpointRequestTTL")
    """How long while the pool is empty. Default: as defaultRequestTTL."""
    default_priority_band: Band | None = None
    """Template for priorities not listed."""
    default_negative_priority_band: Band | None = None
    """Template for priorities below 0. Default: defaultPriorityBand."""
    priority_bands: tuple[Band, ...] = ()
    """Bands by priority."""
    usage_limit_policy_plugin_ref: str = ""
    """Default: static-usage-limit-policy."""
    saturation_detector: Ref | None = None
    """Says how full the pool is, with and without the gate. Default: ledger-detector, which upstream does not have."""
    enable_eviction: bool = False
    """Give up requests in flight for more important ones."""


class RequestHandler(_Section, frozen=True):
    """How request bodies are read."""

    parsers: tuple[Ref, ...] = ()
    """Parsers in order; a name that `plugins` does not have is taken as a type. Default: openai-parser,
    anthropic-parser, vllmhttp-parser, passthrough-parser."""


class Config(_Section, frozen=True):
    """The whole file."""

    api_version: str = ""
    """llm-d.ai/v1alpha1; inference.networking.x-k8s.io/v1alpha1 is the old spelling."""
    kind: str = ""
    """EndpointPickerConfig."""
    feature_gates: tuple[str, ...] = ()
    """`name`, `name=true` or `name=false`. Known: flowControl (false), haPopulateNonLeaderDatastore (true)."""
    plugins: tuple[PluginEntry, ...] = ()
    """The plug-ins, whoever uses them."""
    scheduling_profiles: tuple[SchedulingProfile, ...] = ()
    """The profiles. Default: one named `default` with every filter, scorer and picker of `plugins`."""
    data_layer: DataLayer = DataLayer()
    """Endpoints and readings."""
    flow_control: FlowControl | None = None
    """The queue; of it, only saturationDetector acts without the feature gate flowControl."""
    request_handler: RequestHandler = RequestHandler()
    """Bodies."""
