"""kubectl, Debian's old one and the newest, against the API server in tests: a client that we did not write."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests import debian
from tests.apiserver import kubeconfig
from tests.apiserver.kubectl import Kubectl

from . import processes

KUBECTLS = [
    pytest.param(debian.command("kubernetes-client"), marks=pytest.mark.needs_debian("kubernetes-client"), id="debian"),
    pytest.param(str(Path(sys.executable).with_name("kubectl")), id="newest"),
]
POOLS = "inferencepools.inference.networking.k8s.io"
RBAC = {
    "reader": ["reader", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]],
    "picker": ["system:serviceaccount:default:picker", []],
    "admin": ["admin", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]],
}
POD = """
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: vllm}}
spec:
  containers:
  - {name: main, image: "vllm:1", ports: [{containerPort: 8000}]}
  - {name: proxy, image: "proxy:1"}
---
"""
POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: pool}
spec: {selector: {matchLabels: {app: vllm}}, targetPorts: [{number: 8000}]}
---
"""
MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {mode: slow}
"""
WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, listKind: WidgetList, plural: widgets, singular: widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""
WIDGET = """
apiVersion: example.com/v1
kind: Widget
metadata: {name: small}
spec: {size: 3}
"""


@contextmanager
def _server(folder: Path, *flags: str) -> Iterator[str]:
    """The URL of a server in a process of its own."""
    command = [sys.executable, "-m", "tests.apiserver", "--port", "0", *flags]
    with processes.child(command, folder / "server.log") as running:
        yield running.line(r"^api server on (\S+)$")[0][1]


@pytest.fixture(scope="module", params=KUBECTLS)
def binary(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server where everything is allowed."""
    with _server(tmp_path_factory.mktemp("open"), "--crd", POOLS) as found:
        yield found


@pytest.fixture
def kubectl(binary: str, url: str, tmp_path: Path) -> Kubectl:
    """In a namespace of this test's own."""
    config = kubeconfig.write(tmp_path / "config", url)
    made = Kubectl(binary, config, f"test-{uuid.uuid4().hex[:8]}")
    made("create", "namespace", made.namespace)
    return made


@pytest.fixture
def users(binary: str, tmp_path: Path) -> Iterator[dict[str, Kubectl]]:
    """By token, against a server with TLS and rules."""
    (tmp_path / "rbac.json").write_text(json.dumps(RBAC))
    flags = ("--tls-dir", str(tmp_path), "--rbac", str(tmp_path / "rbac.json"))
    with _server(tmp_path, *flags) as found:
        ca = tmp_path / "ca.crt"
        configs = {token: kubeconfig.write(tmp_path / f"config-{token}", found, token, ca) for token in (*RBAC, "lost")}
        yield {token: Kubectl(binary, config) for token, config in configs.items()}


def test_it_finds_version_kinds_and_health(kubectl: Kubectl) -> None:
    assert json.loads(kubectl("version", "-o", "json"))["serverVersion"]["major"] == "1"
    listed = kubectl("api-resources", "-o", "name").split()
    assert {"pods", "leases.coordination.k8s.io", "endpointslices.discovery.k8s.io", POOLS} <= set(listed)
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_it_creates_and_reads_objects(kubectl: Kubectl) -> None:
    made = kubectl("create", "-f", "-", text=POD + POOL + MAP)
    pool = "inferencepool.inference.networking.k8s.io/pool"
    assert made.splitlines() == ["pod/a created", f"{pool} created", "configmap/settings created"]
    assert kubectl.names("pods,infpool,cm") == ["pod/a", pool, "configmap/settings"]
    assert kubectl.read("infpool", "pool")["spec"]["targetPorts"] == [{"number": 8000}]
    assert "mode: slow" in kubectl("get", "cm", "settings", "-o", "yaml")
    refused = kubectl.refused("create", "-f", "-", text=MAP)
    assert (
        'Error from server (AlreadyExists): error when creating "STDIN": configmaps "settings" already exists'
        in refused
    )


def test_it_prints_the_servers_columns(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=POD)
    titles, row = kubectl("get", "pods").splitlines()
    assert (titles.split(), row.split()[:4]) == (
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE"],
        ["a", "0/2", "Pending", "0"],
    )
    assert kubectl("get", "pods", "-o", "wide").split()[5:7] == ["IP", "NODE"]


def test_it_selects_by_labels_and_fields(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=POD + POD.replace("name: a", "name: b").replace("app: vllm", "app: sglang"))
    assert kubectl.names("pods", "-l", "app in (vllm, other)") == ["pod/a"]
    assert kubectl.names("pods", "-l", "app!=vllm") == ["pod/b"]
    assert kubectl.names("pods", "--field-selector", "metadata.name=b,status.phase=Pending") == ["pod/b"]
    assert kubectl.names("pods", "--chunk-size=1") == ["pod/a", "pod/b"]
    assert "field label not supported: spec.image" in kubectl.refused("get", "pods", "--field-selector", "spec.image=x")


def test_it_applies_what_changed(kubectl: Kubectl) -> None:
    assert "pod/a created" in kubectl("apply", "-f", "-", text=POD + POOL)
    assert "pod/a unchanged" in kubectl("apply", "-f", "-", text=POD + POOL)
    changed = (POD + POOL).replace("vllm:1", "vllm:2").replace("8000", "8001")
    assert "pod/a configured" in kubectl("apply", "-f", "-", text=changed)
    main, proxy = kubectl.read("pod", "a")["spec"]["containers"]
    assert (main["image"], main["ports"], proxy["image"]) == ("vllm:2", [{"containerPort": 8001}], "proxy:1")
    assert kubectl.read("infpool", "pool")["spec"]["targetPorts"] == [{"number": 8001}]
    refused = kubectl.refused("apply", "--server-side", "-f", "-", text=POD)
    assert "no server-side apply in this API server for tests" in refused


def test_it_labels_and_annotates(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=POD + POOL)
    for kind, name in (("pod", "a"), ("infpool", "pool")):
        kubectl("label", kind, name, "role=decode")
        kubectl("annotate", kind, name, "llm-d.ai/active-ports=8000")
        metadata = kubectl.read(kind, name)["metadata"]
        assert metadata["labels"]["role"] == "decode"
        assert metadata["annotations"]["llm-d.ai/active-ports"] == "8000"
    kubectl("label", "pod", "a", "role-", "app=sglang", "--overwrite")
    assert kubectl.read("pod", "a")["metadata"]["labels"] == {"app": "sglang"}


def test_it_patches_in_three_ways(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=POD)
    kubectl("patch", "pod", "a", "-p", '{"spec": {"containers": [{"name": "proxy", "image": "proxy:2"}]}}')
    kubectl("patch", "pod", "a", "--type=merge", "-p", '{"metadata": {"labels": {"merged": "yes"}}}')
    kubectl("patch", "pod", "a", "--type=json", "-p", '[{"op": "remove", "path": "/metadata/labels/app"}]')
    pod = kubectl.read("pod", "a")
    assert [container["image"] for container in pod["spec"]["containers"]] == ["vllm:1", "proxy:2"]
    assert pod["metadata"]["labels"] == {"merged": "yes"}


def test_it_replaces_and_edits(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=MAP)
    kubectl("replace", "-f", "-", text=MAP.replace("slow", "fast"))
    assert kubectl.read("cm", "settings")["data"] == {"mode": "fast"}
    kubectl("edit", "cm", "settings", KUBE_EDITOR="sed -i s/fast/slow/")
    assert kubectl.read("cm", "settings")["data"] == {"mode": "slow"}
    stale = MAP.replace("name: settings", 'name: settings, resourceVersion: "1"')
    assert "the object has been modified" in kubectl.refused("replace", "-f", "-", text=stale)


def test_it_writes_the_status_of_a_pod(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "-f", "-", text=POD)
    pod = kubectl.read("pod", "a")
    conditions = [{"type": "Ready", "status": "True"}]
    pod["status"] = {"phase": "Running", "podIP": "127.0.0.1", "conditions": conditions}
    (tmp_path / "pod.json").write_text(json.dumps(pod))
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/a/status"
    kubectl("replace", "--raw", path, "-f", str(tmp_path / "pod.json"))
    kubectl("wait", "--for=condition=Ready", "pod/a", "--timeout=10s")
    assert kubectl.names("pods", "--field-selector", "status.phase=Running") == ["pod/a"]


def test_it_deletes_with_grace_and_without(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", text=POD + POD.replace("name: a", "name: b") + MAP)
    kubectl("delete", "pod", "a")  # waits until it is gone
    assert kubectl.names("pods") == ["pod/b"]
    kubectl("delete", "pod", "b", "--grace-period=0", "--force")
    kubectl("delete", "-f", "-", text=MAP)
    assert kubectl.names("pods,cm") == []
    assert 'pods "a" not found' in kubectl.refused("delete", "pod", "a")
    kubectl("delete", "namespace", kubectl.namespace)


def test_it_watches(kubectl: Kubectl, tmp_path: Path) -> None:
    command = kubectl.command("get", "pods", "-w", "-l", "app=vllm", "--no-headers")
    kubectl("create", "-f", "-", text=POD)
    with processes.child(command, tmp_path / "watch.log") as watching:
        watching.line(r"^a +0/2 +Pending")
        kubectl("create", "-f", "-", text=POD.replace("name: a", "name: other").replace("app: vllm", "app: else"))
        kubectl("create", "-f", "-", text=POD.replace("name: a", "name: b"))
        watching.line(r"^b +0/2 +Pending")
        kubectl("delete", "pod", "a")
        watching.line(r"^a +0/2 +Terminating")
    assert "other" not in (tmp_path / "watch.log").read_text()


def test_it_installs_and_removes_a_kind(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", text=WIDGETS)
    kubectl("apply", "-f", "-", text=WIDGET)
    assert kubectl("get", "wd", "--no-headers").split()[:2] == ["small", "3"]
    kubectl("delete", "crd", "widgets.example.com")
    assert "NotFound" in kubectl.refused("get", "--raw", "/apis/example.com/v1/widgets")


def test_it_asks_what_it_may(users: dict[str, Kubectl]) -> None:
    reader = users["reader"]
    assert reader("auth", "can-i", "list", "pods").strip() == "yes"
    assert "no" in reader.refused("auth", "can-i", "delete", "pods").split()
    assert "pods" in reader("auth", "can-i", "--list")
    assert reader("get", "pods", "-o", "name") == ""
    says = (
        'secrets is forbidden: User "reader" cannot list resource "secrets" in API group "" in the namespace "default"'
    )
    assert f"Error from server (Forbidden): {says}" in reader.refused("get", "secrets")
    assert "You must be logged in to the server (Unauthorized)" in users["lost"].refused("get", "pods")


def test_roles_that_it_creates_hold(users: dict[str, Kubectl]) -> None:
    admin, picker = users["admin"], users["picker"]
    assert "no" in picker.refused("auth", "can-i", "list", "pods").split()
    admin("create", "role", "reader", "--verb=get,list,watch", "--resource=pods")
    admin("create", "rolebinding", "reader", "--role=reader", "--serviceaccount=default:picker")
    assert picker("auth", "can-i", "list", "pods").strip() == "yes"
    assert "no" in replace(picker, namespace="other").refused("auth", "can-i", "list", "pods").split()


def test_faults_reach_it(kubectl: Kubectl, tmp_path: Path) -> None:
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods"
    for name, status in (("on", {path: 500}), ("off", {})):
        (tmp_path / name).write_text(json.dumps({"status": status}))
    kubectl("create", "--raw", "/faults", "-f", str(tmp_path / "on"))
    assert "the server answers 500 in this test" in kubectl.refused("get", "pods")
    kubectl("create", "--raw", "/faults", "-f", str(tmp_path / "off"))
    assert kubectl.names("pods") == []
