"""What tests of Kubernetes discovery need: the API server, objects, a feed that writes down what it finds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from epp.feeds.kube import KubeFeed, Place
from epp.kube.client import Api
from epp.kube.watch import Around, Pace
from epp.pool.table import Pool
from epp.rewrites import Steering
from tests.apiserver import ApiServer

NAMESPACE = "llm"
NEW_POOLS = "inferencepools.inference.networking.k8s.io"
OLD_POOLS = "inferencepools.inference.networking.x-k8s.io"
OBJECTIVES, REWRITES = "inferenceobjectives.llm-d.ai", "inferencemodelrewrites.llm-d.ai"
OLD_OBJECTIVES = "inferenceobjectives.inference.networking.x-k8s.io"
ALL = (NEW_POOLS, OBJECTIVES, REWRITES)
QUICK = Pace(first_s=0.01, most_s=0.05, absent_s=0.03, silent_s=0.3)
PATIENCE_S = 10.0


def pool(version: str = "new", name: str = "pool", ports: tuple[int, ...] = (8000,), **labels: str) -> dict[str, Any]:
    """An InferencePool of pods with these labels (default: app=vllm)."""
    labels = labels or {"app": "vllm"}
    meta = {"name": name, "namespace": NAMESPACE}
    if version == "old":
        spec: dict[str, Any] = {"selector": labels, "targetPortNumber": ports[0], "extensionRef": {"name": "epp"}}
        return _object("inference.networking.x-k8s.io/v1alpha2", "InferencePool", meta, spec)
    spec = {"selector": {"matchLabels": labels}, "targetPorts": [{"number": port} for port in ports]}
    return _object("inference.networking.k8s.io/v1", "InferencePool", meta, spec)


def objective(name: str, priority: int, group: str = "llm-d.ai") -> dict[str, Any]:
    spec = {"priority": priority, "poolRef": {"name": "pool"}}
    return _object(f"{group}/v1alpha2", "InferenceObjective", {"name": name, "namespace": NAMESPACE}, spec)


def rewrite(name: str, model: str, to: str) -> dict[str, Any]:
    rules = [{"matches": [{"model": {"type": "Exact", "value": model}}], "targets": [{"modelRewrite": to}]}]
    meta = {"name": name, "namespace": NAMESPACE}
    return _object("llm-d.ai/v1alpha2", "InferenceModelRewrite", meta, {"poolRef": {"name": "pool"}, "rules": rules})


def pod(name: str, address: str = "10.0.0.1", *, ready: bool = True, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels or {"app": "vllm"}}
    status = {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": str(ready)}]}
    containers = [{"name": "main", "image": "vllm"}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": containers}, "status": status}


def _object(version: str, kind: str, meta: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


class Heard:
    """Writes down how watches go."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []
        self.then: Callable[[str, str], None] = lambda resource, cause: None
        self.stands: dict[str, tuple[bool | None, int, int]] = {}

    def watch_failed(self, resource: str, cause: str) -> None:
        self.failures.append((resource, cause))
        self.then(resource, cause)

    def watch_stands(self, resource: str, *, synced: bool | None, objects: int, broken: int) -> None:
        self.stands[resource] = (synced, objects, broken)


class Found:
    """A feed with a real pool behind it."""

    def __init__(self, api: Api, place: Place, pace: Pace) -> None:
        self.pool = Pool()
        self.heard = Heard()
        self.steering = Steering()
        around = Around(self.heard, time.monotonic, random.Random(0).random, pace)
        self.feed = KubeFeed(api, place, [self.pool], around, steer=self._steer, lost=self.pool.lost)

    def _steer(self, steering: Steering) -> None:
        self.steering = steering

    @property
    def endpoints(self) -> dict[str, str]:
        """`ip:port` by name."""
        return {record.name: record.host_port for record in self.pool.snapshot(0.0).records}

    async def shows(self, *names: str) -> None:
        await until(lambda: self.pool.synced and set(self.endpoints) == set(names))


async def until(met: Callable[[], object]) -> None:
    """Until the condition holds; the test fails if it never does."""
    async with asyncio.timeout(PATIENCE_S):
        while not met():  # noqa: ASYNC110 - what is waited for is another program's state
            await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(server: ApiServer, folder: Path, token: str = "t") -> AsyncIterator[Api]:
    path = server.kubeconfig(folder / "kubeconfig", token=token)
    api = await Api.connect({"KUBECONFIG": str(path)})
    try:
        yield api
    finally:
        await api.close()


@asynccontextmanager
async def following(
    server: ApiServer, folder: Path, *, pace: Pace = QUICK, token: str = "t", **place: Any
) -> AsyncIterator[Found]:
    """A feed that runs against the server meanwhile."""
    async with connected(server, folder, token) as api:
        found = Found(api, Place(**{"namespace": NAMESPACE, "pool_name": "pool"} | place), pace)
        running = asyncio.create_task(found.feed.run(), name="feed")
        try:
            yield found
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait({running})
