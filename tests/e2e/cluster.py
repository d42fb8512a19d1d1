"""A cluster without nodes: an API server as a process, kubectl, engines as pods, the picker as KServe starts it.

Objects are written by kubectl alone, so that a client we did not write drives the picker.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from tests import debian
from tests.deploy.kserve import Starts

from .processes import EPP, Child, Engine, Picker, child, engines, free_port

KUBECTL, DEBIANS = Path(sys.executable).with_name("kubectl"), Path(debian.command("kubernetes-client"))
POOLS, OLD_POOLS = "inferencepools.inference.networking.k8s.io", "inferencepools.inference.networking.x-k8s.io"
OBJECTIVES, REWRITES = "inferenceobjectives.llm-d.ai", "inferencemodelrewrites.llm-d.ai"
POOL = "qwen-inference-pool"
"""The one that KServe's words name."""
PICKER = "system:serviceaccount:pickers:epp"
"""Whom the picker's tokens belong to; what it may is said by Role and RoleBinding of each namespace."""
TOKEN, ADMIN, SCRAPER, STRANGER = "picker-1", "admin", "prometheus", "stranger"
EVERYTHING = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, {"nonResourceURLs": ["*"], "verbs": ["*"]}]
USERS = {
    ADMIN: ("admin", EVERYTHING),
    SCRAPER: ("prometheus", [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]),
    STRANGER: ("stranger", []),
}
"""Token → who that is, and what they may."""
READ = ["get", "list", "watch"]
NEW, OLD, OURS = "inference.networking.k8s.io", "inference.networking.x-k8s.io", "llm-d.ai"
Json = dict[str, Any]  # Kubernetes objects
ROLE: Json = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": "epp-role"},
    "rules": [
        {"apiGroups": [""], "resources": ["pods"], "verbs": READ},
        {
            "apiGroups": [NEW, OLD],
            "resources": ["inferencepools", "inferenceobjectives", "inferencemodels"],
            "verbs": READ,
        },
        {"apiGroups": [OLD], "resources": ["inferencemodelrewrites", "inferencepoolimports"], "verbs": READ},
        {"apiGroups": [OURS], "resources": ["inferenceobjectives", "inferencemodelrewrites"], "verbs": READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "verbs": [*READ, "create", "update", "patch", "delete"],
        },
    ],
}
"""What KServe lets a picker do: nothing with events, secrets, configmaps or nodes, nothing outside its namespace."""
BINDING: Json = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "RoleBinding",
    "metadata": {"name": "epp-rb"},
    "subjects": [{"kind": "ServiceAccount", "name": "epp", "namespace": "pickers"}],
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "epp-role"},
}
DELEGATOR = "system:auth-delegator"
REVIEWS: list[Json] = [
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": DELEGATOR},
        "rules": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
            {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
        ],
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "epp-auth-rb"},
        "subjects": BINDING["subjects"],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DELEGATOR},
    },
]
"""What lets the picker ask who may read its metrics port; a cluster has the role, KServe makes the binding."""


class KubectlFailed(Exception):
    """kubectl ended with an error; the text is its command and what it said."""


@dataclass
class Server:
    """The API server over TLS, with tokens; it may be killed and started again on the same port."""

    folder: Path
    stack: ExitStack
    crds: Sequence[str] = (POOLS, OBJECTIVES, REWRITES)
    port: int = field(default_factory=free_port)
    child: Child = field(init=False)

    def start(self, *objects: Json, tokens: Sequence[str] = (TOKEN,)) -> None:
        """With these objects and no others; `tokens` are the picker's."""
        table = {**USERS, **{token: (PICKER, []) for token in tokens}}
        rbac, there = self.folder / "rbac.json", self.folder / "objects.yaml"
        rbac.write_text(json.dumps(table))
        there.write_text(yaml.safe_dump_all(objects))
        command = [sys.executable, "-m", "tests.apiserver", "--port", str(self.port), "--rbac", str(rbac)]
        command += ["--tls-dir", str(self.folder), "--objects", str(there)]
        command += [word for crd in self.crds for word in ("--crd", crd)]
        self.child = self.stack.enter_context(child(command, self.folder / "apiserver.log"))
        self.child.line(r"^api server on ")

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def kubeconfig(self, name: str, token: str) -> Path:
        """Written whole and moved into place."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": str(self.ca)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        part = self.folder / f"{name}.part"
        part.write_text(yaml.safe_dump(content))
        return part.replace(self.folder / name)

    def fault(self, **knobs: Any) -> None:
        """Turn knobs of tests.apiserver.Faults."""
        asked = urllib.request.Request(f"https://127.0.0.1:{self.port}/faults", json.dumps(knobs).encode())
        with urllib.request.urlopen(asked, timeout=5, context=ssl.create_default_context(cafile=self.ca)):
            pass


@dataclass(frozen=True)
class Namespace:
    """One namespace, for one test."""

    server: Server
    name: str
    binary: Path = KUBECTL

    def kubectl(self, *words: str, given: str = "") -> str:
        """What kubectl prints; `given` is its standard input. Raises KubectlFailed."""
        config = self.server.kubeconfig("admin.kubeconfig", ADMIN)
        # Each version has a cache of its own: they keep discovery in different forms.
        cache = self.server.folder / self.binary.parent.parent.name
        command = [str(self.binary), f"--kubeconfig={config}", f"--cache-dir={cache}", f"--namespace={self.name}"]
        command += words
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise KubectlFailed(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *objects: Json) -> None:
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(objects))

    def open(self, *objects: Json) -> None:
        """Make it, with what the picker may do there and these objects."""
        self.kubectl("create", "namespace", self.name)
        self.apply(ROLE, BINDING, *objects)

    def pods(self, **addresses: str) -> None:
        """Pods that run and are ready, by name."""
        self.apply(*(pod(name) for name in addresses))
        for name, address in addresses.items():
            self.tell(name, podIP=address, phase="Running", conditions=[{"type": "Ready", "status": "True"}])

    def ready(self, name: str, ready: bool) -> None:
        self.tell(name, conditions=[{"type": "Ready", "status": str(ready)}])

    def tell(self, name: str, **status: Any) -> None:
        """What a kubelet would write into a pod's status."""
        newest = replace(self, binary=KUBECTL)  # older ones know no --subresource
        newest.patch(f"pod/{name}", {"status": status}, "--subresource=status")

    def patch(self, what: str, patch: Json, *words: str) -> None:
        self.kubectl("patch", what, "--type=merge", f"--patch={json.dumps(patch)}", *words)


def pod(name: str, **labels: str) -> Json:
    container = {"name": "main", "image": "vllm"}
    metadata = {"name": name, "labels": labels or {"app": "qwen"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}}


def running(name: str, address: str) -> Json:
    """A pod that is ready from the start; only what is there from the start can be."""
    status = {"podIP": address, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {**pod(name), "status": status}


def there(place: Namespace, *objects: Json) -> list[Json]:
    """The namespace with what the picker may do in it and these objects, to start an API server with."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": place.name}}
    inside = [{**one, "metadata": {**one["metadata"], "namespace": place.name}} for one in (ROLE, BINDING, *objects)]
    return [space, *inside]


def pool(*ports: int, **labels: str) -> Json:
    """The pool of KServe's words."""
    picker = {"name": "qwen-epp-service", "port": {"number": 9002}}
    spec = {
        "selector": {"matchLabels": labels or {"app": "qwen"}},
        "targetPorts": [{"number": port} for port in ports],
        "endpointPickerRef": picker,
    }
    return {"apiVersion": f"{NEW}/v1", "kind": "InferencePool", "metadata": {"name": POOL}, "spec": spec}


def steering(kind: str, name: str, **spec: Any) -> Json:
    """An InferenceObjective or InferenceModelRewrite of that pool."""
    of = {"poolRef": {"group": NEW, "kind": "InferencePool", "name": POOL}}
    return {"apiVersion": f"{OURS}/v1alpha2", "kind": kind, "metadata": {"name": name}, "spec": {**of, **spec}}


@dataclass(frozen=True)
class Fleet:
    """Engines on addresses of their own and one port, as pods of a pool are."""

    port: int
    by_address: Mapping[str, Engine]


@contextmanager
def fleet(folder: Path, count: int, *flags: str, ports: int = 1) -> Iterator[Fleet]:
    """Engines on 127.0.0.2 and up, each a process of its own, on `ports` ports in a row."""
    port = free_port()
    with ExitStack() as stack:
        started: dict[str, Engine] = {}
        for address in (f"127.0.0.{number + 2}" for number in range(count)):
            words = ("--host", address, "--port", str(port), *flags)
            started[address] = stack.enter_context(engines(folder, ports, *words))[0]
        yield Fleet(port, started)


@contextmanager
def picker(
    place: Namespace,
    kubeconfig: Path | None,
    *flags: str,
    starts: Starts | None = None,
    wrap: Sequence[str] = (),
    **environ: str,
) -> Iterator[Picker]:
    """The picker with KServe's words; the flags of the container's template follow them. `wrap` starts it."""
    free = ("--grpc-port=0", "--grpc-health-port=0", "--metrics-port=0")
    mine = (*free, f"--pool-namespace={place.name}", "--metrics-endpoint-auth=false", *flags)
    words = replace(starts or Starts(), args=mine).argv
    log = place.server.folder / f"picker-{place.name}-{time.monotonic_ns()}.log"
    told = {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
    with child([*wrap, EPP, *words], log, environ | told) as started:
        yield Picker(started)
        started.kill()


@contextmanager
def pickers(place: Namespace, count: int, *flags: str) -> Iterator[list[Picker]]:
    """Replicas that elect one of them, started together, in pods `epp-0` and up (make them if they matter)."""
    kubeconfig = place.server.kubeconfig(f"{place.name}.kubeconfig", TOKEN)
    starts = Starts(replicas=count)
    with ExitStack() as stack:
        starting = [
            stack.enter_context(picker(place, kubeconfig, *flags, starts=starts, POD_NAME=f"epp-{number}"))
            for number in range(count)
        ]
        yield [serves(one) for one in starting]


def serves(starting: Picker) -> Picker:
    """The same, once it listens, with its ports."""
    line = json.loads(starting.child.line(r'^\{.*"msg":"serving".*\}$')[0][0])
    return Picker(starting.child, {name: line[name] for name in line if name.endswith("_port")})
