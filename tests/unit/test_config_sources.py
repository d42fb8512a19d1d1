"""dataLayer: what is scraped and how, where endpoints come from, and what retired flags change of it."""

from __future__ import annotations

import pytest

from epp.config import Built, ConfigError, Overrides
from tests.config_kit import made


def layer(built: Built) -> dict[str, object]:
    found: dict[str, object] = built.resolved.value["dataLayer"]
    return found


BOTH = {"pluginRef": "metrics-data-source", "extractors": [{"pluginRef": "core-metrics-extractor"}]}


def test_without_a_source_engines_are_read_as_usual() -> None:
    built = made("plugins: [{type: even}]")
    assert built.metrics is not None
    assert built.metrics.source.path == "/metrics"
    assert built.metrics.engines.default.name == "vllm"
    assert layer(built) == {"sources": [BOTH]}


def test_a_source_under_another_name_is_the_only_one() -> None:
    built = made("plugins: [{type: metrics-data-source, name: pages, parameters: {path: /p, port: 9}}]")
    assert built.metrics is not None
    assert (built.metrics.source.path, built.metrics.source.port) == ("/p", 9)
    assert layer(built) == {"sources": [{**BOTH, "pluginRef": "pages"}]}


def test_listed_sources_and_extractors_are_used() -> None:
    built = made("""
        plugins:
        - {type: metrics-data-source, name: s, parameters: {scheme: https, insecureSkipVerify: false}}
        - {type: core-metrics-extractor, name: x, parameters: {defaultEngine: sglang}}
        dataLayer: {sources: [{pluginRef: s, extractors: [{pluginRef: x}]}]}
        """)
    assert built.metrics is not None
    assert built.metrics.source.scheme == "https"
    assert built.metrics.engines.default.name == "sglang"


def test_a_source_may_be_named_by_its_type_alone() -> None:
    assert layer(made("dataLayer: {sources: [{pluginRef: metrics-data-source}]}")) == {"sources": [BOTH]}


def test_idle_sources_do_not_keep_engines_from_being_read() -> None:
    built = made("""
        plugins: [{type: models-data-source}, {type: models-data-extractor}, {type: endpoint-notification-source}]
        dataLayer:
          sources:
          - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
          - {pluginRef: endpoint-notification-source}
        """)
    assert layer(built) == {"sources": [BOTH]}
    assert [warning.partition(" has ")[0] for warning in built.warnings] == [
        "plugins[0]: models-data-source",
        "plugins[1]: models-data-extractor",
        "plugins[2]: endpoint-notification-source",
    ]


def test_engines_are_not_read_where_defaults_are_declined() -> None:
    built = made("dataLayer: {injectDefaults: false}")
    assert built.metrics is None
    assert layer(built) == {"injectDefaults": False}
    assert built.warnings == ("dataLayer: no source of metrics and injectDefaults is false: engines are not read",)


def test_custom_metrics_are_named_after_their_extractor() -> None:
    built = made("""
        plugins:
        - type: core-metrics-extractor
          name: mine
          parameters:
            defaultEngine: own
            engineConfigs:
            - {name: own, kvUsageSpec: 'kv{engine=0}', customMetrics: [{attributeKey: heat, metricSpec: heat}]}
        """)
    assert built.metrics is not None
    assert [key for key, _ in built.metrics.engines.default.attributes] == ["heat/mine"]


def test_the_endpoints_file_is_found() -> None:
    built = made("""
        plugins: [{type: file-discovery, name: f, parameters: {path: /tmp/e.yaml, watchFile: true}}]
        dataLayer: {discovery: {pluginRef: f}}
        """)
    assert built.discovery is not None
    assert (built.discovery.path, built.discovery.watch_file) == ("/tmp/e.yaml", True)
    assert layer(built)["discovery"] == {"pluginRef": "f"}


def test_retired_flags_fill_in_what_the_file_does_not_say() -> None:
    overrides = Overrides(source={"scheme": "https", "path": "/other", "insecureSkipVerify": False})
    built = made("plugins: [{type: metrics-data-source, parameters: {path: /p}}]", overrides=overrides)
    assert built.metrics is not None
    source = built.metrics.source
    assert (source.scheme, source.path, source.insecure_skip_verify) == ("https", "/p", False)
    assert built.warnings == ("plugins[0].parameters: path: this counts, not the retired flag",)
    assert built.resolved.value["plugins"][0]["parameters"] == {
        "scheme": "https",
        "path": "/p",
        "insecureSkipVerify": False,
    }


def test_retired_metric_flags_change_a_part_of_the_default_engine() -> None:
    built = made("plugins: [{type: even}]", overrides=Overrides(engine={"queuedRequestsSpec": "mine:waiting"}))
    assert built.metrics is not None
    default = built.metrics.engines.default
    assert [source.spec.name for source in (*default.waiting, *default.running)] == [
        "mine:waiting",
        "vllm:num_requests_running",
    ]


def test_engines_of_the_file_go_before_retired_metric_flags() -> None:
    built = made(
        "plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: sglang}}]",
        overrides=Overrides(engine={"queuedRequestsSpec": "mine:waiting"}),
    )
    assert built.metrics is not None
    assert built.metrics.engines.default.name == "sglang"
    assert built.warnings == ("plugins[0].parameters: its engines count, not the retired flags",)


REFUSED = {
    "a source of another type": (
        "plugins: [{type: even}]\ndataLayer: {sources: [{pluginRef: even}]}",
        "dataLayer.sources[0].pluginRef (line 4): 'even' is of type even; it must be of type metrics-data-source",
    ),
    "two sources": (
        "plugins: [{type: metrics-data-source}, {type: metrics-data-source, name: b}]\n"
        "dataLayer: {sources: [{pluginRef: metrics-data-source}, {pluginRef: b}]}",
        "dataLayer.sources[1] (line 4): a second source of metrics",
    ),
    "two extractors": (
        "plugins: [{type: core-metrics-extractor, name: a}, {type: core-metrics-extractor, name: b}]\n"
        "dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: a}, {pluginRef: b}]}]}",
        "dataLayer.sources[0].extractors (line 4): two of type core-metrics-extractor; keep one",
    ),
    "an engine that is not there": (
        "plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: vlm}}]",
        "plugins[0].parameters (line 3): core-metrics-extractor: defaultEngine: no engine 'vlm'",
    ),
    "a path that would end its line": (
        'plugins: [{type: metrics-data-source, parameters: {path: "/m HTTP/1.1\\r\\nx: y"}}]',
        "plugins[0].parameters.path (line 3): metrics-data-source: '/m HTTP/1.1\\r\\nx: y' has a space",
    ),
    "a bad interval": (
        "plugins: [{type: metrics-data-source, parameters: {interval: '5'}}]",
        "plugins[0].parameters.interval (line 3): metrics-data-source: '5' is no duration",
    ),
    "a bad port": (
        "plugins: [{type: metrics-data-source, parameters: {port: 70000}}]",
        "plugins[0].parameters.port (line 3): metrics-data-source: expected a whole number <= 65535",
    ),
    "an unknown parameter": (
        "plugins: [{type: metrics-data-source, parameters: {url: x}}]",
        "plugins[0].parameters (line 3): metrics-data-source: no parameter named 'url'",
    ),
    "discovery without a path": (
        "plugins: [{type: file-discovery}]\ndataLayer: {discovery: {pluginRef: file-discovery}}",
        "plugins[0].parameters (line 3): file-discovery: required parameter missing: path",
    ),
    "discovery by nobody": (
        "dataLayer: {discovery: {pluginRef: f}}",
        "dataLayer.discovery.pluginRef (line 3): no plug-in is named 'f'",
    ),
    "peers": ("dataLayer: {peerDiscovery: {pluginRef: f}}", "dataLayer.peerDiscovery (line 3): is known upstream but"),
    "a syncer": (
        "dataLayer: {crossReplicaSyncerPluginRef: f}",
        "dataLayer.crossReplicaSyncerPluginRef (line 3): is known",
    ),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_used_is_refused_with_its_path(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        made(text)
    assert told in str(raised.value)
