"""Settings of the plug-in type `core-metrics-extractor`: where each engine's numbers stand on its metrics page.

A metric spec is a name, or a name with labels that must match: `name{label=value}`. An empty one is not read.
"""

from __future__ import annotations

import msgspec


class CustomMetric(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A number that becomes an attribute of the endpoint."""

    attribute_key: str
    """What the endpoint-attribute plug-ins call it."""
    metric_spec: str
    """Metric spec. Several series: the newest by timestamp, else the first; narrow it with labels."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One kind of engine. It replaces the built-in one of the same name as a whole: what it leaves out is not read."""

    name: str = ""
    """Value of the engine label that chooses this entry. `default` is reserved."""
    queued_requests_spec: str = ""
    """Requests waiting in the engine; series are summed."""
    running_requests_spec: str = ""
    """Requests being worked on; series are summed."""
    kv_usage_spec: str = ""
    """Share of the KV cache in use, 0 … 1; the largest series counts."""
    lora_spec: str = ""
    """Info family with the labels running_lora_adapters, waiting_lora_adapters and max_lora."""
    cache_info_spec: str = ""
    """Info family that holds block size and count as labels, named by the next two settings."""
    cache_block_size_label_name: str = ""
    """Label of cacheInfoSpec with the tokens in a block."""
    cache_num_blocks_label_name: str = ""
    """Label of cacheInfoSpec with the number of blocks."""
    cache_block_size_spec: str = ""
    """Tokens in a block as a value, read if the label tells nothing; the largest series counts."""
    cache_num_blocks_spec: str = ""
    """Number of blocks as a value, read if the label tells nothing; series are summed."""
    custom_metrics: tuple[CustomMetric, ...] = ()
    """More numbers to read, for the endpoint-attribute plug-ins."""


class CoreMetricsExtractor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Which engine's names to look for on which endpoint's page."""

    engine_label_key: str = "llm-d.ai/engine-type"
    """Endpoint label that names the engine; `inference.networking.k8s.io/engine-type` is asked second."""
    default_engine: str = "vllm"
    """Engine of endpoints without the label or with an unknown one."""
    engine_configs: tuple[EngineConfig, ...] = ()
    """Engines besides the built-in vllm, sglang, trtllm-serve, triton-tensorrt-llm and triton, or in place of them."""
