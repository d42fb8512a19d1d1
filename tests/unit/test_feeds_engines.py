"""Which map an endpoint gets, and what settings make of the maps."""

from __future__ import annotations

import msgspec
import pytest

from epp.feeds import FeedError
from epp.feeds.engineconfig import CoreMetricsExtractor
from epp.feeds.engines import BUILT_IN, Engines, Source, engines
from epp.feeds.spec import Spec
from epp.types import Endpoint

NEW = "llm-d.ai/engine-type"
OLD = "inference.networking.k8s.io/engine-type"


def configured(parameters: dict[str, object]) -> Engines:
    return engines(msgspec.convert(parameters, CoreMetricsExtractor))


@pytest.mark.parametrize(
    ("labels", "engine"),
    [
        pytest.param({}, "vllm", id="no label"),
        pytest.param({NEW: "sglang"}, "sglang", id="label"),
        pytest.param({OLD: "trtllm-serve"}, "trtllm-serve", id="legacy label"),
        pytest.param({NEW: "triton", OLD: "sglang"}, "triton", id="both"),
        pytest.param({NEW: "mystery", OLD: "sglang"}, "vllm", id="unknown engine"),
        pytest.param({NEW: "", OLD: "sglang"}, "sglang", id="empty label"),
    ],
)
def test_the_engine_is_chosen_by_label(labels: dict[str, str], engine: str) -> None:
    assert engines().of(Endpoint("a", "10.0.0.1", 8000, labels=labels)).name == engine


def test_label_and_default_engine_can_be_set() -> None:
    chosen = configured({"engineLabelKey": "engine", "defaultEngine": "sglang"})
    assert chosen.of(Endpoint("a", "10.0.0.1", 8000, labels={"engine": "triton"})).name == "triton"
    assert chosen.of(Endpoint("b", "10.0.0.1", 8000, labels={OLD: "vllm"})).name == "vllm"
    assert chosen.of(Endpoint("c", "10.0.0.1", 8000, labels={NEW: "vllm"})).name == "sglang"


def test_a_user_entry_replaces_the_built_in_one_as_a_whole() -> None:
    chosen = configured({"engineConfigs": [{"name": "vllm", "kvUsageSpec": "vllm:gpu_cache_usage_perc"}]})
    assert chosen.default.kv_usage == (Source(Spec("vllm:gpu_cache_usage_perc")),)
    assert chosen.default.waiting == ()
    assert chosen.default.loras is None
    assert set(chosen.by_name) == {engine.name for engine in BUILT_IN}


def test_every_key_of_an_engine_config_finds_its_place() -> None:
    entry = {
        "name": "mine",
        "queuedRequestsSpec": "queued{kind=a}",
        "runningRequestsSpec": "running",
        "kvUsageSpec": "usage",
        "loraSpec": "loras",
        "cacheInfoSpec": "cache",
        "cacheBlockSizeLabelName": "size",
        "cacheNumBlocksLabelName": "count",
        "cacheBlockSizeSpec": "size_value",
        "cacheNumBlocksSpec": "count_value",
        "customMetrics": [{"attributeKey": "power", "metricSpec": "watts{gpu=0}"}],
    }
    mine = configured({"engineConfigs": [entry]}).by_name["mine"]
    assert mine.waiting == (Source(Spec("queued", (("kind", "a"),))),)
    assert mine.running == (Source(Spec("running")),)
    assert mine.kv_usage == (Source(Spec("usage")),)
    assert mine.loras == Spec("loras")
    assert mine.block_tokens == (Source(Spec("cache"), "size"), Source(Spec("size_value")))
    assert mine.num_blocks == (Source(Spec("cache"), "count"), Source(Spec("count_value")))
    assert mine.attributes == (("power", Spec("watts", (("gpu", "0"),))),)


def test_attribute_keys_carry_the_name_of_an_unusual_producer() -> None:
    metric = {"attributeKey": "power", "metricSpec": "watts"}
    settings = msgspec.convert({"engineConfigs": [{"name": "vllm", "customMetrics": [metric]}]}, CoreMetricsExtractor)
    assert engines(settings, producer="mine").default.attributes[0][0] == "power/mine"


CUSTOM = {"attributeKey": "a", "metricSpec": "m"}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        pytest.param({"defaultEngine": "vlm"}, "defaultEngine: no engine 'vlm'; have: sglang, triton", id="default"),
        pytest.param({"engineConfigs": [{}]}, r"engineConfigs\[0\]\.name: '' is reserved", id="no name"),
        pytest.param({"engineConfigs": [{"name": "default"}]}, r"'default' is reserved", id="reserved name"),
        pytest.param({"engineConfigs": [{"name": "a"}, {"name": "a"}]}, r"engineConfigs\[1\]\.name: 'a'", id="twice"),
        pytest.param(
            {"engineConfigs": [{"name": "a", "kvUsageSpec": "m{a"}]},
            r"engineConfigs\[0\] \(a\)\.kvUsageSpec: 'm\{a' is no metric spec",
            id="bad spec",
        ),
        pytest.param(
            {"engineConfigs": [{"name": "a", "customMetrics": [CUSTOM, CUSTOM]}]},
            r"customMetrics\[1\]\.attributeKey: 'a' is empty or there twice",
            id="attribute twice",
        ),
        pytest.param(
            {"engineConfigs": [{"name": "a", "customMetrics": [{"attributeKey": "", "metricSpec": "m"}]}]},
            r"customMetrics\[0\]\.attributeKey: '' is empty",
            id="empty attribute",
        ),
        pytest.param(
            {"engineConfigs": [{"name": "a", "customMetrics": [{"attributeKey": "a", "metricSpec": " "}]}]},
            r"customMetrics\[0\]\.metricSpec: it is empty",
            id="empty custom spec",
        ),
    ],
)
def test_settings_that_cannot_be_used_are_refused_with_their_path(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        configured(parameters)
