"""The ready configurations, and those that others generate, load with the installed plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.config import Built, ConfigError, load
from epp.config.defaults import TEXT
from epp.config.yaml import read
from epp.feeds.entries import read_endpoints
from epp.plugins import PLACES, Catalogue
from tests.config_kit import HEAD

FOLDER = Path(__file__).parents[2] / "config"
READY = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "endpoints.yaml")


def built(text: str | None, *, experimental: bool = False) -> Built:
    return load(text, catalogue=Catalogue.installed(), experimental=experimental)


def weights(found: Built, profile: str = "default") -> dict[str, float]:
    return {bound.name: weight for bound, weight in found.setup.profiles[profile].scorers}


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_a_ready_configuration_loads_without_a_warning_and_again_as_resolved(path: Path) -> None:
    first = built(path.read_text(), experimental=path.stem == "session")
    assert first.warnings == ()
    again = built(first.resolved.yaml(), experimental=True)
    assert (again.resolved.value, again.warnings) == (first.resolved.value, ())


def test_the_ready_default_is_the_default() -> None:
    assert read((FOLDER / "default.yaml").read_text()).value == read(TEXT).value


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "---\n"], ids=["absent", "empty", "a comment", "a mark"])
def test_nothing_is_the_default_of_the_llm_d_router(text: str | None) -> None:
    found = built(text)
    assert weights(found) == {"queue-scorer": 2.0, "kv-cache-utilization-scorer": 2.0, "prefix-cache-scorer": 3.0}
    assert list(found.setup.plugins) == [
        "queue-scorer",
        "kv-cache-utilization-scorer",
        "prefix-cache-scorer",
        "max-score-picker",
        "single-profile-handler",
        "openai-parser",
        "anthropic-parser",
        "vllmhttp-parser",
        "passthrough-parser",
        "approx-prefix-cache-producer",
        "token-producer",
    ]
    assert [signal.bound.name for signal in found.setup.signals] == ["token-producer", "approx-prefix-cache-producer"]


def test_sorted_json_is_as_good_as_yaml() -> None:
    sorted_json = msgspec.json.encode(read(TEXT).value, order="sorted").decode()
    assert built(sorted_json).resolved == built(None).resolved


def test_the_example_of_an_endpoints_file_can_be_read() -> None:
    found = read_endpoints((FOLDER / "endpoints.yaml").read_bytes())
    assert (len(found.endpoints), len(found.loads), found.errors, found.load_errors) == (3, 3, (), ())


HELM = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: prefix-cache-scorer
- type: metrics-data-source
  parameters: {scheme: "http", path: "/metrics", insecureSkipVerify: true}
- type: core-metrics-extractor
  parameters: {defaultEngine: trtllm-serve}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
dataLayer:
  sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]
requestHandler:
  parsers: [{pluginRef: vllmgrpc-parser}]
"""


def test_what_the_helm_chart_writes_loads() -> None:
    found = built(HELM)
    assert found.warnings == ()
    assert found.metrics is not None
    assert found.metrics.engines.default.name == "trtllm-serve"


PREFILL_DECODE = """
plugins:
- type: disagg-headers-handler
- type: prefill-filter
- type: decode-filter
- type: queue-scorer
- type: kv-cache-utilization-scorer
- type: active-request-scorer
- type: prefix-cache-scorer
- type: max-score-picker
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters: {deciders: {prefill: always-disagg-pd-decider}}
schedulingProfiles:
- name: prefill
  plugins: [{pluginRef: prefill-filter}, {pluginRef: prefix-cache-scorer, weight: 3}, {pluginRef: max-score-picker}]
- name: decode
  plugins: [{pluginRef: decode-filter}, {pluginRef: active-request-scorer, weight: 2}, {pluginRef: max-score-picker}]
"""


def test_what_kserve_writes_for_prefill_and_decode_is_refused_in_exact_words() -> None:
    with pytest.raises(ConfigError) as raised:
        built(HEAD + PREFILL_DECODE)
    assert str(raised.value) == (
        "plugins[0].type (line 5): 'disagg-headers-handler' is known upstream but not offered here (prefill/decode "
        "disaggregation); remove it, and use single-profile-handler with one profile that has decode-filter: decode "
        "endpoints then compute the prompt too; likewise 'always-disagg-pd-decider' (plugins[8]), "
        "'disagg-profile-handler' (plugins[9])"
    )


OLD_GUIDE = """
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: kv-cache-scorer
- type: prefix-cache-scorer
  parameters: {hashBlockSize: 64, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}
- type: max-score-picker
  parameters: {maxNumOfEndpoints: 1}
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 1}
  - {pluginRef: kv-cache-scorer, weight: 1}
  - {pluginRef: prefix-cache-scorer, weight: 1}
  - {pluginRef: max-score-picker}
"""


def test_what_the_guides_of_2025_show_loads_with_a_warning_for_each_old_word() -> None:
    found = built(OLD_GUIDE)
    assert [warning.partition(":")[0] for warning in found.warnings] == [
        "apiVersion",
        "plugins[1].type",
        "plugins[2].parameters",
    ]
    assert weights(found) == {"queue-scorer": 1.0, "kv-cache-scorer": 1.0, "prefix-cache-scorer": 1.0}


def test_a_token_producer_that_would_ask_a_service_works_in_estimate_mode_with_one_warning() -> None:
    found = built(HEAD + "plugins: [{type: token-producer, parameters: {modelName: m, vllm: {url: 'http://x'}}}]")
    assert [warning for warning in found.warnings if "token-producer" in warning] == list(found.warnings)
    assert len(found.warnings) == 1


REQUIRED = {
    "header-label-affinity-scorer": {"headerName": "h", "labelKey": "k"},
    "endpoint-attribute-scorer": {"attributeKey": "a", "algorithm": {"type": "linear_lower_is_better"}},
    "endpoint-attribute-filter": {
        "attribute": "a",
        "algorithm": {"type": "threshold", "threshold": {"operator": "Equal", "value": 1}},
    },
    "utilization-filter": {"conditions": [{"metric": "waiting-queue", "maxValue": 3}]},
    "by-label": {"label": "l", "validValues": ["v"]},
    "session-id-producer": {"headerName": "h"},
    "priority-holdback-policy": {"minCeiling": 0.5},
    "request-attribute-reporter": {"attributes": [{"key": {"name": "n"}, "expression": "usage.total_tokens"}]},
}
"""Types that do not come without settings."""


OURS = [
    point.name
    for group in sorted(PLACES.values())
    for point in entry_points(group=group)
    if point.dist and point.dist.name == "endpoint-picker"
]


@pytest.mark.parametrize("name", sorted(set(OURS)))
def test_every_type_of_ours_loads_in_a_profile_of_its_own_and_again_as_resolved(name: str) -> None:
    entry = {"type": name, "parameters": REQUIRED.get(name, {})}
    first = built(HEAD + "plugins: " + msgspec.json.encode([entry]).decode(), experimental=True)
    again = built(first.resolved.yaml(), experimental=True)
    assert again.resolved.value == first.resolved.value
    assert len(again.warnings) == len(first.warnings)


ANY = st.sampled_from(
    [None, True, -1, 1.5, 10**30, "", "x", "1Gi", "queue-scorer", [], [None], [[]], {}, {"": ""}, {"pluginRef": "x"}]
)


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in a file."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from spots(one, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: object) -> Any:
    """A copy of `value` with something else at `path`."""
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


@given(st.data())
def test_whatever_stands_in_a_file_it_loads_or_is_refused_in_words(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([HELM, OLD_GUIDE, HEAD + PREFILL_DECODE, *(path.read_text() for path in READY)]))
    value = read(text).value
    for _ in range(2):
        value = replaced(value, data.draw(st.sampled_from(list(spots(value)))), data.draw(ANY))
    try:
        found = built(msgspec.json.encode(value).decode(), experimental=True)
    except ConfigError:
        return
    assert built(found.resolved.yaml(), experimental=True).resolved.value == found.resolved.value
