"""A custom metric's whole way: from the engine's page through the pool to the plug-in that votes by it."""

from __future__ import annotations

from epp.config import load
from epp.feeds.reading import read
from epp.plugins import Catalogue
from epp.pool.table import Pool
from epp.types import Change, Endpoint

CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: endpoint-attribute-scorer
  parameters: {attributeKey: temperature, algorithm: {type: linear_lower_is_better}}
- type: core-metrics-extractor
  parameters:
    engineConfigs:
    - name: vllm
      queuedRequestsSpec: "vllm:num_requests_waiting"
      customMetrics: [{attributeKey: temperature, metricSpec: gpu_temperature}]
schedulingProfiles: [{name: default, plugins: [{pluginRef: endpoint-attribute-scorer}]}]
"""
PAGE = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting 0
# TYPE gpu_temperature gauge
gpu_temperature {}
"""


def test_a_custom_metric_reaches_the_scorer_that_names_it() -> None:
    built = load(CONFIG, catalogue=Catalogue.installed(), experimental=True)
    endpoints = [Endpoint(name, f"10.0.0.{row}", 8000) for row, name in enumerate("abc", 1)]
    pool = Pool()
    pool.apply(Change(present=tuple(endpoints)))
    assert built.metrics is not None
    for endpoint, degrees in zip(endpoints, (90, 70, 50), strict=True):
        page = PAGE.format(degrees).encode()
        pool.update(endpoint.key, read(page, built.metrics.engines.of(endpoint)).reading, 0.0, 1.0)
    [(scorer, _)] = built.setup.profiles["default"].scorers
    assert scorer.call(pool.snapshot(0.0)).tolist() == [0.0, 0.5, 1.0]
