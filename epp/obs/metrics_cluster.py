"""Metrics of what is watched in Kubernetes, and of who leads."""

from __future__ import annotations

from epp.obs.series import Families


class ClusterMetrics:
    """Hears how watches go (`epp.kube.watch.Hears`) and whether this replica leads."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def watch_failed(self, resource: str, cause: str) -> None:
        self._families.cells("watch_errors_total").add((resource, cause))

    def watch_stands(self, resource: str, *, synced: bool | None, objects: int, broken: int) -> None:
        """`synced` None: the server has no such kind, which is no trouble."""
        cells = self._families.cells
        if synced is None:
            for name in ("watch_synced", "watched_objects", "broken_objects"):
                cells(name).drop(lambda labels, _: labels[0] == resource)
            return
        cells("watch_synced").set((resource,), float(synced))
        cells("watched_objects").set((resource,), objects)
        cells("broken_objects").set((resource,), broken)

    def leads(self, leading: bool) -> None:
        self._families.cells("leader").set((), float(leading))
