"""Kubernetes discovery: the pool, its pods, its objectives and rewrites, kept true until cancelled.

With --endpoint-selector the pods alone are watched: no custom kind is needed, and none is asked for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from epp.feeds import Sink
from epp.feeds.kube_objects import Ours, PoolForm, form_of
from epp.feeds.kube_pods import PodFeed
from epp.feeds.kube_steering import SteeringFeed
from epp.kube.records import InferencePool, OldInferencePool
from epp.kube.watch import Around, Changes, Kind, Server, Watch
from epp.rewrites import Steering

log = logging.getLogger("epp.kube")
NEW_GROUP, OLD_GROUP = "inference.networking.k8s.io", "inference.networking.x-k8s.io"


@dataclass(frozen=True, slots=True)
class Place:
    """What to serve, as the command line says it."""

    namespace: str
    pool_name: str
    pool_group: str = NEW_GROUP
    """What objectives and rewrites must name; pools of either group are read."""
    selector: str = ""
    """With it no InferencePool is read."""
    ports: tuple[int, ...] = ()

    @property
    def pool(self) -> str:
        return f"InferencePool {self.namespace}/{self.pool_name}"


class KubeFeed:
    """`run` until cancelled."""

    def __init__(
        self,
        server: Server,
        place: Place,
        sinks: Sequence[Sink],
        around: Around,
        *,
        steer: Callable[[Steering], None],
        lost: Callable[[], None],
    ) -> None:
        """`sinks` take the endpoints, `steer` what else is in force; `lost` hears that the pool was deleted."""
        self.form: PoolForm | None = None
        """What the pool says; None while there is none."""
        self._place = place
        self._lost = lost
        self._complaint = ""
        self._tasks: asyncio.TaskGroup | None = None
        self._pods = PodFeed(server, place.namespace, sinks, around)
        self._steering = SteeringFeed(server, place.namespace, Ours(place.pool_name, place.pool_group), around, steer)
        query = {"fieldSelector": f"metadata.name={place.pool_name}"}
        where = f"namespaces/{place.namespace}/inferencepools"
        new = Kind(f"inferencepools.{NEW_GROUP}", f"/apis/{NEW_GROUP}/v1/{where}", InferencePool, query)
        old = Kind(f"inferencepools.{OLD_GROUP}", f"/apis/{OLD_GROUP}/v1alpha2/{where}", OldInferencePool, query)
        self._new_pools = Watch(server, new, self, around)
        self._old_pools = Watch(server, old, self, around)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            if self._place.selector:
                self.form = PoolForm({}, self._place.ports)
                self._pods.follow(self._tasks, self._place.selector, self._place.ports)
            else:
                for watch in self._custom():
                    self._tasks.create_task(watch.run(), name=f"watch {watch.kind.resource}")

    def watches(self) -> Iterator[Watch[Any]]:  # of several kinds
        """Every watch there is, to look at."""
        if not self._place.selector:
            yield from self._custom()
        if self._pods.watch is not None:
            yield self._pods.watch

    def _custom(self) -> Iterator[Watch[Any]]:
        yield self._new_pools
        yield self._old_pools
        yield from self._steering.watches()

    def changed(self, changes: Changes[Any]) -> None:  # of either version
        """A pool came, changed or went."""
        self.moved()

    def moved(self) -> None:
        """Look which pool counts: one of the current version, else one of the former."""
        new, old = self._new_pools, self._old_pools
        if not (new.decided or new.known):
            return
        found = next(iter(new.known.values()), None) or next(iter(old.known.values()), None)
        if found is not None and not found.metadata.deletion_timestamp:
            self._use(form_of(found))
        elif old.decided or found is not None:
            self._no_pool()

    def _use(self, form: PoolForm) -> None:
        former, self.form = self.form, form
        self._complaint = ""
        if former is None or former.labels != form.labels:
            log.info("%s: pods with %s", self._place.pool, form.selector, extra={"ports": form.ports})
            if self._tasks is not None:
                self._pods.follow(self._tasks, form.selector, form.ports)
        elif former.ports != form.ports:
            self._pods.at_ports(form.ports)

    def _no_pool(self) -> None:
        if self.form is not None:
            log.warning("%s was deleted: no endpoints until it is back", self._place.pool)
            self.form = None
            self._pods.stop()
            self._lost()
            return
        watches = (self._new_pools, self._old_pools)
        said = [text for watch in watches for text in (watch.problem, *watch.broken.values()) if text]
        why = "; ".join(dict.fromkeys(said)) or "there is none of that name"
        if why != self._complaint:
            self._complaint = why
            log.warning("waiting for %s: %s", self._place.pool, why)
