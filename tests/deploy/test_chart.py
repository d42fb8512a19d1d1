"""What the chart makes of its values."""

from __future__ import annotations

import re
from typing import Any

import helm_python
import pytest

from epp.options import parse

from .chart_kit import REQUIRED, Release
from .schemas import problems
from .sources import CHART, VALUES, Source, chart, rendered

STANDBY: Any = {"replicas": 3}
ACTIVE: Any = {"replicas": 3, "flags": {"ha-enable-leader-election": False}}


def test_helm_finds_nothing_to_complain_about() -> None:
    report = helm_python.lint(CHART, REQUIRED, strict=True)
    assert [one["error"] for one in report["messages"]] == ["icon is recommended"]
    assert report["errors"] == []


def test_a_single_picker_is_replaced_after_the_next_is_ready() -> None:
    release = Release()
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert release.one("Deployment")["spec"]["strategy"] == strategy
    assert release.names("PodDisruptionBudget") == []
    assert "--ha-enable-leader-election" not in release.args


def test_with_a_leader_all_pickers_are_replaced_at_once_and_none_is_kept_from_eviction() -> None:
    release = Release(epp=STANDBY)
    assert release.one("Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    assert release.names("PodDisruptionBudget") == []
    assert "--ha-enable-leader-election" in release.args


def test_a_leader_lets_go_of_its_lease_at_once() -> None:
    assert "lifecycle" not in Release(epp=STANDBY).picker
    assert Release().picker["lifecycle"]["preStop"]["exec"]["command"] == ["/bin/sleep", "5"]


def test_active_pickers_are_replaced_one_by_one_and_evicted_one_by_one() -> None:
    release = Release(epp=ACTIVE)
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert release.one("Deployment")["spec"]["strategy"] == strategy
    assert release.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert not parse(release.args, {}).ha_enable_leader_election


def test_only_a_leader_may_write_leases() -> None:
    def rules(release: Release) -> list[str]:
        role = release.one("Role", "qwen-epp-picker")
        return [resource for rule in role["rules"] for resource in rule["resources"]]

    assert "leases" in rules(Release(epp=STANDBY))
    assert "leases" not in rules(Release(epp=ACTIVE))


def test_several_pickers_prefer_different_nodes_and_zones() -> None:
    assert "affinity" not in Release().pod
    pod = Release(epp=STANDBY).pod
    [term] = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert [one["topologyKey"] for one in pod["topologySpreadConstraints"]] == ["topology.kubernetes.io/zone"]


def test_an_autoscaler_decides_how_many_there_are() -> None:
    release = Release(epp={"autoscaling": {"enabled": True}})
    assert "replicas" not in release.one("Deployment")["spec"]
    assert release.one("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    assert release.names("PodDisruptionBudget") == ["qwen-epp"]
    assert "--ha-enable-leader-election" not in release.args


def test_without_a_pool_the_picker_watches_pods_and_nothing_else() -> None:
    release = Release(inferencePool={"create": False}, modelServers={"targetPorts": [{"number": 1}, {"number": 2}]})
    options = parse(release.args, {})
    assert (options.endpoint_selector, options.endpoint_target_ports, options.pool_name) == ("app=vllm", (1, 2), "")
    assert [rule["resources"] for rule in release.one("Role", "qwen-epp-picker")["rules"]] == [["pods"]]
    assert release.names("InferencePool") == []


def test_probes_ask_for_life_and_readiness_on_the_health_port() -> None:
    picker = Release(epp={"grpcHealthPort": 9103}).picker
    assert picker["livenessProbe"]["grpc"] == {"port": 9103, "service": "liveness"}
    assert picker["readinessProbe"]["grpc"] == {"port": 9103, "service": "readiness"}


def test_ports_are_the_same_for_the_picker_its_service_and_its_pool() -> None:
    release = Release(epp={"extProcPort": 9100}, metricsPort=9191)
    options = parse(release.args, {})
    assert [port["port"] for port in release.one("Service")["spec"]["ports"]] == [9100, 9191]
    assert (options.grpc_port, options.metrics_port) == (9100, 9191)
    assert release.one("InferencePool", "qwen")["spec"]["endpointPickerRef"]["port"] == {"number": 9100}


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (True, "true"), (0.25, "0.25"), (2_000_000_000, "2000000000"), ("45s", "45s"), (0, "0")],
)
def test_a_flag_keeps_its_value(value: object, text: str) -> None:
    assert f"--x={text}" in Release(epp={"flags": {"x": value}}).args


def test_every_image_can_be_named_as_in_earlier_charts() -> None:
    image = {"hub": "ghcr.example/team", "name": "picker", "tag": "v9"}
    assert Release(epp={"image": image}).picker["image"] == "ghcr.example/team/picker:v9"


def test_a_digest_stands_instead_of_the_tag() -> None:
    digest = "sha256:" + "0" * 64
    assert Release(epp={"image": {"digest": digest}}).picker["image"] == f"registry.example/endpoint-picker@{digest}"


def test_metrics_are_shown_by_a_token_of_an_account_that_may_do_nothing_else() -> None:
    release = Release(monitoring={"prometheus": {"enabled": True}})
    [endpoint] = release.one("ServiceMonitor", "qwen-epp-monitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "qwen-epp-metrics-reader", "key": "token"}
    bound = [one.value for one in release.objects if one.kind.endswith("Binding")]
    roles = [one["roleRef"]["name"] for one in bound if one["subjects"][0]["name"] == "qwen-epp-metrics-reader"]
    assert roles == ["llm-qwen-epp-metrics-reader"]


@pytest.mark.parametrize(
    "router",
    [
        {"monitoring": {"prometheus": {"auth": {"enabled": False}}}},
        {"epp": {"flags": {"metrics-endpoint-auth": False}}},
    ],
    ids=["value", "flag"],
)
def test_without_tokens_nothing_is_cluster_wide(router: Any) -> None:
    release = Release({"router": router})
    assert not parse(release.args, {}).metrics_endpoint_auth
    assert release.names("ClusterRole") == []


def test_traces_go_where_the_values_say() -> None:
    release = Release(tracing={"enabled": True, "otelExporterEndpoint": "http://otel:4317"})
    env = {one["name"]: one.get("value") for one in release.picker["env"]}
    assert (env["OTEL_TRACES_EXPORTER"], env["OTEL_EXPORTER_OTLP_ENDPOINT"]) == ("otlp", "http://otel:4317")
    assert parse(release.args, {}).tracing
    assert not parse(Release().args, {}).tracing


def test_a_changed_configuration_restarts_nobody_unless_asked() -> None:
    def annotations(restart: bool, weight: int) -> Any:
        config = {"kind": "EndpointPickerConfig", "weight": weight}
        release = Release(epp={"pluginsConfig": config, "restartOnConfigChange": restart})
        return release.one("Deployment")["spec"]["template"]["metadata"].get("annotations")

    assert annotations(False, 1) == annotations(False, 2)
    assert annotations(True, 1) != annotations(True, 2)


def test_istio_speaks_tls_to_the_picker_without_asking_who_it_is() -> None:
    def tls(**router: Any) -> Any:
        return Release({"provider": {"name": "istio"}}, **router).one("DestinationRule")["spec"]["trafficPolicy"]["tls"]

    assert tls() == {"mode": "SIMPLE", "insecureSkipVerify": True}
    assert tls(epp={"flags": {"secure-serving": False}}) == {"mode": "DISABLE"}


@pytest.mark.parametrize("values", sorted(VALUES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_pod_is_restricted(values: Any) -> None:
    """By the Pod Security Standard of that name."""
    for one in chart(values):
        if one.kind == "Deployment":
            pod = one.value["spec"]["template"]["spec"]
            assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
            assert not any("hostPath" in volume for volume in pod["volumes"])
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["capabilities"] == {"drop": ["ALL"]}
                assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)


def test_the_oldest_kubernetes_that_the_chart_allows_takes_it() -> None:
    """Envoy's preStop is younger."""
    [allowed] = re.findall(r'kubeVersion: ">=(\d+\.\d+)\.0-0"', (CHART / "Chart.yaml").read_text())
    for path in VALUES.glob("*.yaml"):
        found = chart(path)
        envoys = any("envoy" in str(one.value) for one in found if one.kind == "Deployment")
        assert [bad for one in found for bad in problems(one, "1.30" if envoys else allowed)] == []


def test_values_of_the_llm_d_charts_mean_the_same() -> None:
    found = Source("tests/deploy/values/earlier-names.yaml")
    [deployment] = [one.value for one in found.objects if one.kind == "Deployment"]
    args = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    options = parse(args, {})
    assert options.config_file == "/config/custom-plugins.yaml"
    assert (options.v, options.scrape_budget, options.max_held_bytes) == (3, 0.25, 2_000_000_000)


def test_labels_of_a_deployment_that_exists_can_be_kept() -> None:
    labels = {"llm-d-router-gateway": "qwen-epp"}
    release = Release(epp={"selectorLabels": labels})
    assert release.one("Deployment")["spec"]["selector"]["matchLabels"] == labels
    assert release.one("Service")["spec"]["selector"] == labels


def test_a_long_release_name_is_cut_to_what_a_service_may_be_called() -> None:
    [service] = [one.name for one in rendered(REQUIRED, name="a" * 53) if one.kind == "Service"]
    assert service == "a" * 40 + "-epp"
