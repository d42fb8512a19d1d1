"""Old spellings: what they are taken for, the one warning each, and which are refused."""

from __future__ import annotations

from textwrap import dedent

import pytest

from epp.config import ConfigError
from epp.config.gates import gates
from epp.config.spelling import modern
from epp.config.yaml import read
from tests.config_kit import HEAD, made


def spelled(text: str) -> tuple[dict[str, object], list[str]]:
    """The file without its two first lines, in current spelling, and the warnings."""
    config, warnings = modern(read(HEAD + dedent(text)).value)
    return {key: value for key, value in config.items() if key not in {"apiVersion", "kind"}}, warnings


OLD = {
    "data": (
        "data: {sources: [{pluginRef: a}]}",
        {"dataLayer": {"sources": [{"pluginRef": "a"}]}},
        "data: this is the old name of dataLayer",
    ),
    "parser": (
        "parser: {pluginRef: a}",
        {"requestHandler": {"parsers": [{"pluginRef": "a"}]}},
        "parser: write it as the first of requestHandler.parsers",
    ),
    "parser beside the new list": (
        "parser: {pluginRef: a}\nrequestHandler: {parsers: [{pluginRef: b}]}",
        {"requestHandler": {"parsers": [{"pluginRef": "b"}]}},
        "parser: ",
    ),
    "saturationDetector": (
        "saturationDetector: {pluginRef: a}",
        {"flowControl": {"saturationDetector": {"pluginRef": "a"}}},
        "saturationDetector: this belongs under flowControl",
    ),
    "saturationDetector beside the new one": (
        "saturationDetector: {pluginRef: a}\nflowControl: {maxBytes: 1, saturationDetector: {pluginRef: b}}",
        {"flowControl": {"maxBytes": 1, "saturationDetector": {"pluginRef": "b"}}},
        "saturationDetector: ",
    ),
    "inline thresholds": (
        "saturationDetector: {queueDepthThreshold: 9, kvCacheUtilThreshold: 0.9, metricsStalenessThreshold: 1s}",
        {
            "plugins": [
                {
                    "type": "utilization-detector",
                    "parameters": {
                        "queueDepthThreshold": 9,
                        "kvCacheUtilThreshold": 0.9,
                        "metricsStalenessThreshold": "1s",
                    },
                }
            ]
        },
        "saturationDetector: thresholds are parameters of the plug-in type utilization-detector",
    ),
    "model-server-protocol-metrics": (
        "plugins: [{type: model-server-protocol-metrics}]",
        {"plugins": [{"type": "core-metrics-extractor", "name": "model-server-protocol-metrics"}]},
        "plugins[0].type: model-server-protocol-metrics is the old name of core-metrics-extractor",
    ),
    "kv-cache-scorer": (
        "plugins: [{type: kv-cache-scorer, name: kv}]",
        {"plugins": [{"type": "kv-cache-utilization-scorer", "name": "kv"}]},
        "plugins[0].type: kv-cache-scorer is the old name of kv-cache-utilization-scorer",
    ),
    "hashBlockSize": (
        "plugins: [{type: prefix-cache-scorer, parameters: {hashBlockSize: 5, matchLengthWeight: 1}}]",
        {"plugins": [{"type": "prefix-cache-scorer", "parameters": {"matchLengthWeight": 1}}]},
        "plugins[0].parameters: hashBlockSize: ignored",
    ),
    "hashBlockSize of the producer": (
        "plugins: [{type: approx-prefix-cache-producer, parameters: {hashBlockSize: 5, autoTune: false}}]",
        {"plugins": [{"type": "approx-prefix-cache-producer", "parameters": {"autoTune": False}}]},
        "plugins[0].parameters: hashBlockSize: ignored",
    ),
    "indexing parameters": (
        "plugins: [{type: prefix-cache-scorer, parameters: {lruCapacityPerServer: 7, maxPrefixBlocksToMatch: 256}}]",
        {
            "plugins": [
                {"type": "prefix-cache-scorer", "parameters": {}},
                {"type": "approx-prefix-cache-producer", "parameters": {"lruCapacityPerServer": 7}},
            ]
        },
        "lruCapacityPerServer: taken as a parameter of approx-prefix-cache-producer; write it there; "
        "maxPrefixBlocksToMatch: ignored",
    ),
    "indexing parameters beside the producer's own": (
        """
        plugins:
        - {type: prefix-cache-scorer, parameters: {lru_capacity_per_server: 7}}
        - {type: approx-prefix-cache-producer}
        """,
        {
            "plugins": [
                {"type": "prefix-cache-scorer", "parameters": {}},
                {"type": "approx-prefix-cache-producer"},
            ]
        },
        "plugins[0].parameters: lru_capacity_per_server: ignored",
    ),
}


@pytest.mark.parametrize(("text", "config", "warning"), OLD.values(), ids=list(OLD))
def test_an_old_spelling_is_taken_for_the_new_one_with_one_warning(
    text: str, config: dict[str, object], warning: str
) -> None:
    found, warnings = spelled(text)
    assert found == config
    assert len(warnings) == 1
    assert warning in warnings[0]


def test_current_spelling_is_left_alone_without_a_word() -> None:
    text = "plugins: [{type: prefix-cache-scorer, parameters: {matchLengthWeight: 1}}]\nflowControl: {maxBytes: 1}"
    assert spelled(text) == (read(text).value, [])


def test_the_file_as_read_is_not_changed() -> None:
    raw = read(HEAD + "plugins: [{type: kv-cache-scorer}]\nparser: {pluginRef: a}").value
    before = repr(raw)
    modern(raw)
    assert repr(raw) == before


UNCLEAR = {
    "data: {}\ndataLayer: {injectDefaults: false}": "data: this is the old name of dataLayer, which is there too",
    "saturationDetector: {pluginRef: a, queueDepthThreshold: 5}": "has thresholds and a pluginRef",
    "saturationDetector: {queueDepth: 5}": "queueDepth: unknown key; did you mean queueDepthThreshold",
    "saturationDetector: 5": "saturationDetector: expected a mapping",
}


@pytest.mark.parametrize(("text", "told"), UNCLEAR.items(), ids=list(UNCLEAR))
def test_an_old_spelling_of_unclear_meaning_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("{", "[{]")):
        spelled(text)


def test_the_old_api_version_is_taken_with_a_warning() -> None:
    config, warnings = modern(read(HEAD.replace("llm-d.ai", "inference.networking.x-k8s.io")).value)
    assert config["apiVersion"] == "llm-d.ai/v1alpha1"
    assert warnings == ["apiVersion: inference.networking.x-k8s.io/v1alpha1 is deprecated; write llm-d.ai/v1alpha1"]


WRONG_HEADS = {
    "apiVersion: v1\nkind: EndpointPickerConfig": "apiVersion: got 'v1'; write apiVersion: llm-d.ai/v1alpha1",
    "kind: EndpointPickerConfig": "apiVersion: missing; write apiVersion: llm-d.ai/v1alpha1",
    "apiVersion: llm-d.ai/v1alpha1": "kind: missing; write kind: EndpointPickerConfig",
    "apiVersion: llm-d.ai/v1alpha1\nkind: ConfigMap": "kind: got 'ConfigMap'; write kind: EndpointPickerConfig",
    "- a": "is a mapping with apiVersion and kind, not list",
}


@pytest.mark.parametrize(("text", "told"), WRONG_HEADS.items(), ids=list(WRONG_HEADS))
def test_another_kind_of_file_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        modern(read(text).value)
    assert told in str(raised.value)


@pytest.mark.parametrize(
    "entry", ["flowControl=false", "flowControl=F", "flowControl=0", "haPopulateNonLeaderDatastore"]
)
def test_a_gate_takes_what_go_takes_for_a_boolean(entry: str) -> None:
    assert gates([entry]) == ({"flowControl": False, "haPopulateNonLeaderDatastore": True}, [])


@pytest.mark.parametrize("entry", ["dataLayer", "prepareDataPlugins=true", "enableLegacyMetrics"])
def test_a_retired_gate_is_ignored_with_a_warning(entry: str) -> None:
    _, warnings = gates([entry])
    assert [warning.partition(":")[0] for warning in warnings] == ["featureGates[0]"]


BAD_GATES = {
    "flowcontrol": "featureGates[0]: unknown feature gate 'flowcontrol'; did you mean flowControl?",
    "flowControl=maybe": "featureGates[0]: flowControl=maybe: expected flowControl=true or flowControl=false",
}


@pytest.mark.parametrize(("entry", "told"), BAD_GATES.items(), ids=list(BAD_GATES))
def test_a_gate_that_cannot_be_is_refused_with_the_remedy(entry: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        gates([entry])
    assert told in str(raised.value)


def test_warnings_of_spelling_come_out_with_the_configuration() -> None:
    built = made("featureGates: [dataLayer]\nparser: {pluginRef: words}\nplugins: [{type: even}]")
    assert [warning.partition(":")[0] for warning in built.warnings] == ["parser", "featureGates[0]"]
