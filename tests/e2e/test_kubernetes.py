"""The picker in Kubernetes mode, started with KServe's command line and driven by kubectl."""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from tests.apiserver import KNOWN

from . import cluster
from .cluster import ADMIN, POOL, REVIEWS, SCRAPER, STRANGER, TOKEN, Fleet, Namespace, Server, pod, pool, steering
from .conftest import Serve
from .gateway import serving
from .processes import Picker, settles
from .served import known

A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"


@pytest.mark.parametrize(
    "kubectl",
    [
        pytest.param(cluster.KUBECTL, id="newest"),
        pytest.param(cluster.DEBIANS, id="debian", marks=pytest.mark.needs_debian("kubernetes-client")),
    ],
)
def test_pods_that_kubectl_makes_labels_and_deletes_come_and_go(
    kubectl: Path, place: Namespace, fleet: Fleet, serve: Serve
) -> None:
    place = replace(place, binary=kubectl)
    place.open(pool(fleet.port))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")
    place.pods(b=B, c=C)
    served.settle("a-rank-0", "b-rank-0", "c-rank-0")
    place.kubectl("label", "pod", "c", "app=other", "--overwrite")
    place.ready("b", False)
    served.settle("a-rank-0")
    place.ready("b", True)
    place.kubectl("delete", "pod", "a", "--wait=false")
    served.settle("b-rank-0")
    assert served.endpoints() == {"b-rank-0": f"{B}:{fleet.port}"}


def test_a_changed_pool_has_other_pods_and_ports(place: Namespace, fleet: Fleet, serve: Serve) -> None:
    place.open(pool(fleet.port), pod("b", app="other"))
    place.pods(a=A)
    place.tell("b", podIP=B, conditions=[{"type": "Ready", "status": "True"}])
    served = serve(place)
    served.settle("a-rank-0")
    with served.undisturbed():
        ports = [{"number": fleet.port}, {"number": fleet.port + 1}]
        place.patch(f"infpool/{POOL}", {"spec": {"targetPorts": ports}})
        served.settle("a-rank-0", "a-rank-1")
        place.kubectl("annotate", "pod", "a", f"llm-d.ai/active-ports={fleet.port + 1}")
        served.settle("a-rank-1")
        place.patch(f"infpool/{POOL}", {"spec": {"selector": {"matchLabels": {"app": "other"}}}})
        served.settle("b-rank-0", "b-rank-1")


def test_objectives_and_rewrites_act_on_requests(place: Namespace, fleet: Fleet, serve: Serve) -> None:
    place.open(pool(fleet.port), steering("InferenceObjective", "urgent", priority=7))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")

    def prioritised(priority: int) -> bool:
        before = served.picker.metric("llm_d_epp_request_total", priority=str(priority))
        assert served.ask("x-gateway-inference-objective: urgent").status == 200
        return served.picker.metric("llm_d_epp_request_total", priority=str(priority)) > before

    assert settles(True, lambda: prioritised(7))
    place.patch("inferenceobjective/urgent", {"spec": {"priority": -1}})
    assert settles(True, lambda: prioritised(-1))
    assert served.ask(model="alias").status == 404
    rules = [{"matches": [{"model": {"type": "Exact", "value": "alias"}}], "targets": [{"modelRewrite": "tiny"}]}]
    place.apply(steering("InferenceModelRewrite", "alias", rules=rules))
    assert settles(200, lambda: served.ask(model="alias").status) == 200
    assert json.loads(served.ask(model="alias").body)["model"] == "alias"
    place.kubectl("delete", "infmodelrewrite", "alias")
    assert settles(404, lambda: served.ask(model="alias").status) == 404


def test_kinds_and_a_pool_that_come_later_are_taken_up(alone: Server, fleet: Fleet, serve: Serve) -> None:
    alone.crds = ()
    alone.start()
    place = Namespace(alone, "llm")
    place.open()
    place.pods(a=A)
    served = serve(place)
    served.says("waiting for InferencePool llm/qwen-inference-pool: the API server has no such kind")
    assert not serving(served.picker)
    assert serving(served.picker, "liveness")
    place.apply(*(KNOWN[crd] for crd in (cluster.POOLS, cluster.REWRITES)))
    place.apply(pool(fleet.port))
    served.settle("a-rank-0")
    assert serving(served.picker)


def test_pods_of_a_selector_need_no_pool(place: Namespace, fleet: Fleet, serve: Serve) -> None:
    place.open(pod("b", app="other"))
    place.pods(a=A)
    place.tell("b", podIP=B, conditions=[{"type": "Ready", "status": "True"}])
    selector = ("--endpoint-selector=app in (qwen,none)", f"--endpoint-target-ports={fleet.port}")
    served = serve(place, "--pool-name=", *selector, POD_NAME="qwen-epp-5d8f7-x2x4z")
    served.settle("a-rank-0")


def test_in_a_pod_the_service_account_is_used(place: Namespace, fleet: Fleet, tmp_path: Path) -> None:
    if os.getuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare: it mounts a service account's files in a namespace of its own")
    place.open(pool(fleet.port))
    place.pods(a=A)
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text(place.name)
    shutil.copy(place.server.ca, account)
    script = 'mount -t tmpfs none /run && mkdir -p "$1" && mount --bind "$0" "$1" && shift && exec "$@"'
    where = "/run/secrets/kubernetes.io/serviceaccount"
    wrap = ("unshare", "--mount", "--propagation=private", "sh", "-ec", script, str(account), where)
    told = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(place.server.port)}
    with cluster.picker(place, None, wrap=wrap, **told) as starting:
        picker = cluster.serves(starting)
        assert settles(True, lambda: serving(picker))
        assert settles(["a-rank-0"], lambda: sorted(known(picker))) == ["a-rank-0"]


# -- the metrics port


def status_of(picker: Picker, path: str, token: str = "") -> int:
    asked = urllib.request.Request(f"http://127.0.0.1:{picker.ports['metrics_port']}{path}")
    if token:
        asked.add_header("authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(asked, timeout=10) as page:
            return int(page.status)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def test_kubernetes_is_asked_who_may_read_the_metrics_port(place: Namespace, fleet: Fleet, serve: Serve) -> None:
    place.open(pool(fleet.port), *REVIEWS)
    place.pods(a=A)
    picker = serve(place, "--metrics-endpoint-auth=true").picker
    assert [status_of(picker, "/metrics", token) for token in ("", "made-up", STRANGER, SCRAPER, ADMIN)] == [
        401,
        401,
        403,
        200,
        200,
    ]
    assert [status_of(picker, "/debug/endpoints", token) for token in (SCRAPER, ADMIN)] == [403, 200]
    place.kubectl("delete", "clusterrolebinding", "epp-auth-rb")


def test_the_debug_page_tells_how_the_cluster_stands(place: Namespace, fleet: Fleet, serve: Serve) -> None:
    place.open(pool(fleet.port))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")
    shown = json.loads(served.picker.get("/debug/kubernetes"))
    assert shown["pool"] == {"selector": "app=qwen", "ports": [fleet.port], "appProtocol": ""}
    phases = {watch["resource"]: watch["phase"] for watch in shown["watches"]}
    assert phases["pods"] == phases[cluster.POOLS] == "synced"
    assert phases[cluster.OLD_POOLS] == "absent"
