"""Values that the chart refuses, and what it says: the value, the rule and the remedy."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from .chart_kit import REQUIRED, merged
from .sources import rendered

EXCLUDED: dict[str, tuple[Any, str]] = {
    "a chart of before": (
        {"inferenceExtension": {"replicas": 2}},
        "inferenceExtension is of an earlier chart; its values are now in router.epp, router.monitoring",
    ),
    "a route of before": ({"experimentalHttpRoute": {"enabled": True}}, "its values are now in httpRoute"),
    "a tokenizer": ({"router": {"tokenizer": {"enabled": True}}}, "router.tokenizer.enabled: this chart has no such"),
    "preferred backends": (
        {"provider": {"gke": {"preferredBackends": {"enabled": True}}}},
        "provider.gke.preferredBackends.enabled: this chart does not offer it; use router.epp.replicas",
    ),
    "a pool made and named": (
        {"router": {"inferencePool": {"name": "x"}}},
        "router.inferencePool.name names a pool that exists; it needs router.inferencePool.create=false",
    ),
    "priorities without a pool": (
        {"router": {"inferencePool": {"create": False}, "inferenceObjectives": [{"name": "a", "priority": 1}]}},
        "name a pool: set router.inferencePool.create=true",
    ),
    "a route without a pool": (
        {"router": {"inferencePool": {"create": False}}, "httpRoute": {"create": True}},
        "httpRoute.create routes to a pool",
    ),
    "a flag of the chart's": (
        {"router": {"epp": {"flags": {"grpc-port": 1}}}},
        "router.epp.flags.grpc-port is set by the chart; use router.epp.extProcPort",
    ),
    "a drain that outlives the pod": (
        {"router": {"epp": {"flags": {"drain-timeout": "120s"}}}},
        "terminationGracePeriodSeconds is 130, but stopping may take 130 s",
    ),
    "a file that is not there": (
        {"router": {"epp": {"pluginsConfigFile": "x.yaml"}}},
        "router.epp.pluginsConfigFile: no file x.yaml; there are default-plugins.yaml, payload-agnostic.yaml",
    ),
    "a file given twice": (
        {"router": {"epp": {"pluginsConfig": {"a": 1}, "pluginsCustomConfig": {"default-plugins.yaml": "a: 1"}}}},
        "both are the file default-plugins.yaml; leave one of them out",
    ),
    "scaled standbys": (
        {"router": {"epp": {"autoscaling": {"enabled": True}, "flags": {"ha-enable-leader-election": True}}}},
        "router.epp.autoscaling.enabled excludes leader election",
    ),
    "fewer at most than at least": (
        {"router": {"epp": {"autoscaling": {"enabled": True, "minReplicas": 6}}}},
        "minReplicas is above maxReplicas",
    ),
    "a share of nothing": (
        {"router": {"epp": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": ""}}}}},
        "set router.epp.resources.requests.cpu",
    ),
    "a rollout that never ends": (
        {"router": {"epp": {"replicas": 2, "deploymentStrategy": {"type": "RollingUpdate"}}}},
        'a RollingUpdate waits for ever for a second ready picker unless rollingUpdate.maxUnavailable is "100%"',
    ),
    "another proxy": (
        {"router": {"proxy": {"enabled": True, "proxyType": "agentgateway"}}},
        "router.proxy.proxyType: this chart runs envoy only, not agentgateway",
    ),
    "two headless Services": (
        {"router": {"proxy": {"enabled": True, "mode": "service"}, "epp": {"service": {"headless": True}}}},
        "router.epp.service.headless is of no use with router.proxy.mode=service",
    ),
    "nothing to scale": (
        {"router": {"modelServers": {"autoscaling": {"enabled": True}}}},
        "router.modelServers.autoscaling.scaleTargetRef.name is required",
    ),
    "nobody to ask": (
        {"router": {"modelServers": {"autoscaling": {"enabled": True, "scaleTargetRef": {"name": "x"}}}}},
        "router.modelServers.autoscaling.serverAddress is required",
    ),
}
IMPOSSIBLE: dict[str, tuple[Any, str]] = {
    "a misspelt key": (
        {"router": {"epp": {"replica": 2}}},
        "/router/epp': additional properties 'replica' not allowed",
    ),
    "a mode of failure": ({"router": {"inferencePool": {"failureMode": "FailClosed"}}}, "'FailOpen', 'FailClose'"),
    "a tag that is a number": ({"router": {"epp": {"image": {"tag": 1.0}}}}, "/router/epp/image/tag': got number"),
    "no picker": ({"router": {"epp": {"replicas": 0}}}, "/router/epp/replicas': minimum"),
    "nine ports": ({"router": {"modelServers": {"targetPorts": [{"number": n} for n in range(1, 10)]}}}, "maxItems"),
    "a plug-in's name": ({"router": {"epp": {"pluginFiles": {"a b.py": "x"}}}}, "'a b.py'"),
    "a flag with dashes": ({"router": {"epp": {"flags": {"--v": 2}}}}, "'--v'"),
    "an engine": ({"router": {"modelServers": {"type": "llama"}}}, "/router/modelServers/type"),
}


def refusal(values: Any) -> str:
    with pytest.raises(helm_python.HelmError) as raised:
        rendered(values)
    return str(raised.value)


def test_the_model_servers_must_be_named() -> None:
    assert "router.modelServers.matchLabels is required: the labels of the model servers' pods" in refusal({})


@pytest.mark.parametrize("case", EXCLUDED)
def test_values_that_exclude_each_other_are_refused_with_the_remedy(case: str) -> None:
    values, told = EXCLUDED[case]
    assert told in refusal(merged(REQUIRED, values))


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_value_that_cannot_be_is_refused_by_the_schema(case: str) -> None:
    values, told = IMPOSSIBLE[case]
    assert told in refusal(merged(REQUIRED, values))


def test_what_is_off_may_be_there() -> None:
    off = {"router": {"tokenizer": {"enabled": False, "port": 8000}, "latencyPredictor": {"enabled": False}}}
    assert rendered(merged(REQUIRED, off)) != []
