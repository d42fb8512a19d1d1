"""This replica's own pod: one that is being deleted makes room for the next leader long before it is told to stop.

Kubernetes takes such a pod out of the gateways' endpoints at once, but tells the process only after its preStop hook
(KServe's sleeps 15 s). As long as it holds the lease nobody else is ready.
"""

from __future__ import annotations

from collections.abc import Callable

from epp.kube.records import Pod
from epp.kube.watch import Around, Changes, Kind, Server, Watch


class OwnPod:
    """`leaving` hears, once, that the pod is being deleted. A name that no pod has is never deleted."""

    def __init__(self, server: Server, where: tuple[str, str], around: Around, leaving: Callable[[], None]) -> None:
        """`where` = namespace and name."""
        namespace, name = where
        query = {"fieldSelector": f"metadata.name={name}"}
        self.watch = Watch(server, Kind("own pod", f"/api/v1/namespaces/{namespace}/pods", Pod, query), self, around)
        self._leaving = leaving
        self._told = False

    def changed(self, changes: Changes[Pod]) -> None:
        # A pod that is merely gone proves nothing: the API server may have lost its state, and this process lives.
        if not self._told and any(pod is not None and pod.metadata.deletion_timestamp for pod in changes.values()):
            self._told = True
            self._leaving()

    def moved(self) -> None:
        """Whether it can be watched or not changes nothing."""
