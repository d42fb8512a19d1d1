"""The metrics page, with the names and labels of vLLM 0.32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.latencies import Histogram, Latencies
from sim.types import Counters, EngineSettings, Load

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES = {
    "num_requests_running": "Requests in the running batch.",
    "num_requests_waiting": "Requests in the queue.",
    "kv_cache_usage_perc": "Share of KV-cache blocks in use, 0 to 1.",
}
_COUNTERS = {
    "prefix_cache_queries_total": "Prompt tokens looked up in the prefix cache.",
    "prefix_cache_hits_total": "Prompt tokens found in the prefix cache.",
    "num_preemptions_total": "Running requests put back into the queue.",
    "prompt_tokens_total": "Prompt tokens of requests that have begun to answer.",
    "generation_tokens_total": "Tokens produced.",
}


def page(model: str, settings: EngineSettings, load: Load, counters: Counters, latencies: Latencies) -> Iterator[str]:
    """Lines of one engine's page, LoRA aside."""
    gauges = (load.running, load.waiting, load.kv_usage)
    totals = (
        counters.prefix_queries,
        counters.prefix_hits,
        counters.preemptions,
        counters.prompt_tokens,
        counters.generation_tokens,
    )
    labels = {"engine": "0", "model_name": model}
    for (name, text), value in zip(_GAUGES.items(), gauges, strict=True):
        yield from _single(name, "gauge", text, labels, value)
    for (name, text), total in zip(_COUNTERS.items(), totals, strict=True):
        yield from _single(name, "counter", text, labels, total)
    yield from _finished(labels, counters)
    for name, histogram in latencies.histograms.items():
        yield from _histogram(name, histogram, labels)
    yield from _cache_config(settings)


def loras(settings: EngineSettings, seen: Mapping[tuple[str, str], float]) -> Iterator[str]:
    """One sample for each pair (running, waiting) of adapter lists ever seen, its value the time it was last true.

    Like vLLM, which never drops old label sets: the highest value is the current one.
    """
    yield from _head("lora_requests_info", "gauge", "Adapters running and waiting; the value is a Unix time.")
    for (running, waiting), at in seen.items():
        labels = {
            "max_lora": str(settings.max_loras),
            "running_lora_adapters": running,
            "waiting_lora_adapters": waiting,
        }
        yield _sample("lora_requests_info", labels, at)


def _finished(labels: Mapping[str, str], counters: Counters) -> Iterator[str]:
    yield from _head("request_success_total", "counter", "Requests that ended, by reason.")
    for reason, count in counters.by_reason().items():
        yield _sample("request_success_total", {**labels, "finished_reason": reason}, count)


def _cache_config(settings: EngineSettings) -> Iterator[str]:
    labels = {
        "block_size": str(settings.block_size),
        "cache_dtype": "auto",
        "enable_prefix_caching": "True",
        "engine": "0",
        "kv_cache_size_tokens": str(settings.block_size * settings.num_blocks),
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(settings.num_blocks),
        "sliding_window": "None",
    }
    yield from _single("cache_config_info", "gauge", "How the KV cache is configured.", labels, 1)


def _histogram(name: str, histogram: Histogram, labels: Mapping[str, str]) -> Iterator[str]:
    yield from _head(name, "histogram", name.replace("_", " ").capitalize() + ".")
    counts = histogram.cumulative()
    bounds = [*[str(float(bound)) for bound in histogram.bounds], "+Inf"]
    for bound, count in zip(bounds, counts, strict=True):
        yield _sample(f"{name}_bucket", {"engine": labels["engine"], "le": bound, **labels}, count)
    yield _sample(f"{name}_count", labels, counts[-1])
    yield _sample(f"{name}_sum", labels, histogram.total)


def _single(name: str, kind: str, text: str, labels: Mapping[str, str], value: float) -> Iterator[str]:
    yield from _head(name, kind, text)
    yield _sample(name, labels, value)


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP vllm:{name} {text}"
    yield f"# TYPE vllm:{name} {kind}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    pairs = ",".join([f'{key}="{_escaped(text)}"' for key, text in labels.items()])
    return f"vllm:{name}{{{pairs}}} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
