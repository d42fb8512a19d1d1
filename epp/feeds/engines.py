"""Which metrics of which engine mean what: the built-in maps, those of the user, and which of them an endpoint has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from epp.feeds import FeedError
from epp.feeds.engineconfig import CoreMetricsExtractor, EngineConfig
from epp.feeds.spec import Spec, SpecError, parse_spec
from epp.types import Endpoint

LEGACY_LABEL = "inference.networking.k8s.io/engine-type"
"""Asked after the configured label."""
PRODUCER = "core-metrics-extractor"
"""The usual name of what provides custom metrics; their attributes need not name it."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number stands: in the value of the series that `spec` admits, or in one of their labels."""

    spec: Spec
    label: str = ""


@dataclass(frozen=True, slots=True)
class EngineMap:
    """Where one kind of engine tells what. The first source of a field that is on the page counts; none = not asked."""

    name: str
    waiting: tuple[Source, ...] = ()
    running: tuple[Source, ...] = ()
    kv_usage: tuple[Source, ...] = ()
    block_tokens: tuple[Source, ...] = ()
    num_blocks: tuple[Source, ...] = ()
    loras: Spec | None = None
    """An info family with labels running_lora_adapters, waiting_lora_adapters, max_lora; its value is a time."""
    attributes: tuple[tuple[str, Spec], ...] = ()
    """(attribute key, where it stands) of each custom metric."""


def _values(*specs: str) -> tuple[Source, ...]:
    return tuple(Source(spec) for spec in map(parse_spec, specs) if spec)


def _label(family: str, label: str) -> tuple[Source, ...]:
    return (Source(Spec(family), label),)


BUILT_IN = (
    EngineMap(
        "vllm",
        waiting=_values("vllm:num_requests_waiting"),
        running=_values("vllm:num_requests_running"),
        # The second is the name in releases up to the middle of 2025.
        kv_usage=_values("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        block_tokens=_label("vllm:cache_config_info", "block_size"),
        num_blocks=_label("vllm:cache_config_info", "num_gpu_blocks"),
        loras=Spec("vllm:lora_requests_info"),
    ),
    EngineMap(
        "sglang",
        # With priority scheduling the series with a priority are parts of the one without.
        waiting=_values('sglang:num_queue_reqs{priority=""}'),
        running=_values('sglang:num_running_reqs{priority=""}'),
        kv_usage=_values("sglang:token_usage"),
        # The gauges replace the info family from 0.5.11 on.
        block_tokens=_label("sglang:cache_config_info", "page_size") + _values("sglang:page_size"),
        num_blocks=_label("sglang:cache_config_info", "num_pages") + _values("sglang:num_pages"),
    ),
    EngineMap(
        "trtllm-serve",
        waiting=_values("trtllm_num_requests_waiting"),
        running=_values("trtllm_num_requests_running"),
        kv_usage=_values("trtllm_kv_cache_utilization"),
        block_tokens=_values("trtllm_kv_cache_tokens_per_block"),
        num_blocks=_values("trtllm_kv_cache_max_blocks"),
    ),
    EngineMap(
        "triton-tensorrt-llm",
        waiting=_values("nv_trt_llm_request_metrics{request_type=waiting}"),
        running=_values("nv_trt_llm_request_metrics{request_type=scheduled}"),
        kv_usage=_values("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
        block_tokens=_values("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}"),
        num_blocks=_values("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"),
    ),
    # The llm-d router reads nv_inference_exec_count as running here. That counter only grows, so an endpoint would look
    # busier the longer it lives; running is left unknown instead.
    EngineMap("triton", waiting=_values("nv_inference_pending_request_count")),
)


@dataclass(frozen=True, slots=True)
class Engines:
    """The engine maps by name and how an endpoint's labels choose one."""

    default: EngineMap
    by_name: Mapping[str, EngineMap]
    label: str = CoreMetricsExtractor().engine_label_key

    def of(self, endpoint: Endpoint) -> EngineMap:
        """By the configured label, else the legacy one; without a label or with an unknown engine the default."""
        name = endpoint.labels.get(self.label) or endpoint.labels.get(LEGACY_LABEL, "")
        return self.by_name.get(name, self.default)


def engines(settings: CoreMetricsExtractor | None = None, *, producer: str = PRODUCER) -> Engines:
    """The built-in maps with the user's in place of or beside them; FeedError tells what can't be used.

    `producer` is the plug-in's configured name: custom metrics of another one than PRODUCER become attributes named
    `attributeKey/producer`, those of PRODUCER go by the bare key.
    """
    settings = settings or CoreMetricsExtractor()
    by_name = {engine.name: engine for engine in BUILT_IN}
    own: dict[str, EngineMap] = {}
    for number, config in enumerate(settings.engine_configs):
        where = f"engineConfigs[{number}]"
        if not config.name or config.name == "default":
            raise FeedError(f"{where}.name: {config.name!r} is reserved; give the value of the engine label")
        if config.name in own:
            raise FeedError(f"{where}.name: {config.name!r} is there twice; keep one")
        own[config.name] = _engine(_Place(f"{where} ({config.name})"), config, producer)
    by_name |= own
    if settings.default_engine not in by_name:
        raise FeedError(f"defaultEngine: no engine {settings.default_engine!r}; have: {', '.join(sorted(by_name))}")
    return Engines(by_name[settings.default_engine], by_name, settings.engine_label_key)


@dataclass(frozen=True, slots=True)
class _Place:
    """A place in the settings: reads specs so that errors name it."""

    path: str

    def spec(self, name: str, text: str) -> Spec | None:
        try:
            return parse_spec(text)
        except SpecError as error:
            raise self.error(name, str(error)) from None

    def value(self, name: str, text: str) -> tuple[Source, ...]:
        found = self.spec(name, text)
        return (Source(found),) if found else ()

    def error(self, name: str, text: str) -> FeedError:
        return FeedError(f"{self.path}.{name}: {text}")


def _engine(place: _Place, config: EngineConfig, producer: str) -> EngineMap:
    cache = place.spec("cacheInfoSpec", config.cache_info_spec)

    def in_label(label: str) -> tuple[Source, ...]:
        return (Source(cache, label),) if cache and label else ()

    return EngineMap(
        config.name,
        waiting=place.value("queuedRequestsSpec", config.queued_requests_spec),
        running=place.value("runningRequestsSpec", config.running_requests_spec),
        kv_usage=place.value("kvUsageSpec", config.kv_usage_spec),
        block_tokens=in_label(config.cache_block_size_label_name)
        + place.value("cacheBlockSizeSpec", config.cache_block_size_spec),
        num_blocks=in_label(config.cache_num_blocks_label_name)
        + place.value("cacheNumBlocksSpec", config.cache_num_blocks_spec),
        loras=place.spec("loraSpec", config.lora_spec),
        attributes=tuple(_attributes(place, config, producer)),
    )


def _attributes(place: _Place, config: EngineConfig, producer: str) -> Iterator[tuple[str, Spec]]:
    seen: set[str] = set()
    for number, metric in enumerate(config.custom_metrics):
        name, key = f"customMetrics[{number}]", metric.attribute_key
        if not key or key in seen:
            raise place.error(f"{name}.attributeKey", f"{key!r} is empty or there twice; give each its own name")
        seen.add(key)
        found = place.spec(f"{name}.metricSpec", metric.metric_spec)
        if found is None:
            raise place.error(f"{name}.metricSpec", "it is empty; give the metric to read")
        yield (key if producer == PRODUCER else f"{key}/{producer}"), found
