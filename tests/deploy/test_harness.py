"""The checks of test_manifests find what is wrong: good sources with one thing spoilt."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import pytest

from epp.config import ConfigError
from epp.options_argv import OptionsError

from . import envoys, references, rights
from .documents import Document, Json
from .pickers import built, configurations, pickers
from .sources import Source

SIDECAR = Source("deploy/standalone/sidecar/kustomization.yaml")
SERVICE = Source("deploy/standalone/service/kustomization.yaml")
POOLED = Source("tests/deploy/values/istio.yaml")


@dataclass(frozen=True)
class Spoilt:
    """A source in which one object is changed; by default the picker's Deployment."""

    change: Callable[[Json], object]
    told: str
    kind: str = "Deployment"
    name: str = "endpoint-picker"
    source: Source = SIDECAR

    @property
    def objects(self) -> list[Document]:
        found = deepcopy(self.source.objects)
        [chosen] = [one for one in found if (one.kind, one.name) == (self.kind, self.name)]
        self.change(chosen.value)
        return found


def pod(value: Json) -> Json:
    return value["spec"]["template"]["spec"]


def picker(value: Json) -> Json:
    return pod(value)["containers"][0]


def rename(value: Json) -> None:
    value["metadata"]["name"] = "other"


def another_port(value: Json) -> None:
    value["spec"]["endpointPickerRef"]["port"]["number"] = 9


def read_secrets(value: Json) -> None:
    value["rules"].append({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})


def say(word: str) -> Callable[[Json], None]:
    def change(value: Json) -> None:
        picker(value)["args"].append(word)

    return change


LOOSE = {
    "a ConfigMap": Spoilt(rename, "ConfigMap/endpoint-picker", "ConfigMap"),
    "an account": Spoilt(rename, "ServiceAccount/endpoint-picker", "ServiceAccount"),
    "a role": Spoilt(rename, "Role/endpoint-picker", "Role"),
    "a pool": Spoilt(rename, "InferencePool/qwen", "InferencePool", "qwen", POOLED),
    "the picker of a pool": Spoilt(rename, "Service/qwen-epp", "Service", "qwen-epp", POOLED),
    "pods of a Service": Spoilt(lambda v: v["spec"].update(selector={"app": "nobody"}), "Pod/app=nobody", "Service"),
}


@pytest.mark.parametrize("spoilt", LOOSE.values(), ids=LOOSE)
def test_a_reference_that_leads_nowhere_is_found(spoilt: Spoilt) -> None:
    assert spoilt.told in dict(references.loose_ends(spoilt.objects))


MISFITS = {
    "a probe": Spoilt(lambda v: picker(v)["readinessProbe"]["grpc"].update(port=9), "a readinessProbe on 9"),
    "a mount": Spoilt(lambda v: picker(v)["volumeMounts"][0].update(name="gone"), "mounts 'gone'"),
    "a volume": Spoilt(lambda v: pod(v)["volumes"].append({"name": "idle"}), "nobody mounts the volume 'idle'"),
    "a port's name": Spoilt(lambda v: picker(v)["ports"][1].update(name="grpc"), "two ports of a pod with one name"),
    "a selector": Spoilt(lambda v: v["spec"].update(selector={"matchLabels": {"a": "b"}}), "its selector a=b does not"),
    "a Service's port": Spoilt(
        lambda v: v["spec"]["ports"][0].update(targetPort="htpp"), "port 8081 leads to htpp", "Service"
    ),
    "a pool's port": Spoilt(another_port, "has no port 9", "InferencePool", "qwen", POOLED),
    "an account's place": Spoilt(lambda v: v["subjects"][0].pop("namespace"), "has no namespace", "RoleBinding"),
    "the picker's port": Spoilt(say("--grpc-port=9999"), "listens on 9999 for grpc, its port says 9002"),
}


@pytest.mark.parametrize("spoilt", MISFITS.values(), ids=MISFITS)
def test_parts_that_do_not_fit_are_found(spoilt: Spoilt) -> None:
    assert [problem for problem in references.misfits(spoilt.objects) if spoilt.told in problem] != []


RIGHTS = {
    "a verb less": Spoilt(lambda v: v["rules"][0]["verbs"].remove("watch"), "lacks watch of core/pods", "Role"),
    "secrets": Spoilt(read_secrets, "needs no get of core/secrets", "Role"),
    "a leader without leases": Spoilt(say("--ha-enable-leader-election"), "lacks create of coordination.k8s.io/leases"),
    "leases without a leader": Spoilt(
        lambda v: picker(v)["args"].remove("--ha-enable-leader-election"),
        "needs no create of coordination.k8s.io/leases",
        source=SERVICE,
    ),
    "reviews without readers": Spoilt(
        say("--metrics-endpoint-auth=false"), "needs no create of authentication.k8s.io/tokenreviews"
    ),
}


@pytest.mark.parametrize("spoilt", RIGHTS.values(), ids=RIGHTS)
def test_rights_that_lack_or_exceed_are_found(spoilt: Spoilt) -> None:
    assert [problem for problem in rights.mismatches(spoilt.objects) if problem.endswith(spoilt.told)] != []


def test_a_word_that_is_no_flag_is_found() -> None:
    [one] = pickers(Spoilt(say("stray"), "").objects)
    assert one.options.warnings == ("ignored 'stray', which is no flag",)


def test_a_flag_that_does_not_exist_is_found() -> None:
    [one] = pickers(Spoilt(say("--pool-nmae=x"), "").objects)
    with pytest.raises(OptionsError, match="unknown flag --pool-nmae"):
        _ = one.options


def test_another_program_than_the_images_is_found() -> None:
    [one] = pickers(Spoilt(lambda v: picker(v).update(command=["/usr/bin/epp"]), "").objects)
    with pytest.raises(AssertionError, match="the image has only /app/epp"):
        _ = one.argv


def test_a_configuration_is_found_wherever_it_stands() -> None:
    text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: no-such}]\n"
    places = [{"data": {"a": text}}, {"args": ["--config-text", text]}, {"inline": {"kind": "EndpointPickerConfig"}}]
    found = [where for where, _ in configurations([Document("x", place) for place in places])]
    assert found == ["x data.a", "x args[1]", "x inline"]
    with pytest.raises(ConfigError, match="'no-such' is no plug-in type"):
        built(text)


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_a_bootstrap_that_envoy_does_not_take_is_found(which: str) -> None:
    bad = Spoilt(lambda v: v["data"].update(e="static_resources: {clustres: []}"), "", "ConfigMap", "qwen-epp", POOLED)
    [(where, text)] = envoys.bootstraps(bad.objects)
    assert where.endswith("ConfigMap qwen-epp data.e")
    assert "clustres" in envoys.complaint(text, which)
