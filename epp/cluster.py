"""The Kubernetes side of one picker: discovery, leader election, who may read the metrics port."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from epp.feeds import Sink
from epp.feeds.kube import KubeFeed, Place
from epp.feeds.kube_own import OwnPod
from epp.kube.lease import Timings, lease_name, new_identity
from epp.kube.lease_runner import Election
from epp.kube.watch import Around
from epp.obs.metrics_cluster import ClusterMetrics
from epp.options import Options
from epp.rewrites import Steering

if TYPE_CHECKING:
    from epp.kube.client import Api

log = logging.getLogger("epp.kube")


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears what the cluster says."""

    sinks: Sequence[Sink]
    """The endpoints."""
    steer: Callable[[Steering], None]
    """Objectives and rewrites."""
    lost: Callable[[], None]
    """The pool was deleted."""
    stands: Callable[[], None]
    """Something that readiness depends on may have changed."""


class Cluster:
    """Runs until cancelled; `release` the lease before, so that another replica may lead at once."""

    def __init__(self, api: Api, options: Options, told: Told, metrics: ClusterMetrics) -> None:
        self.api = api
        around = Around(metrics, time.monotonic, random.random)
        self.feed = KubeFeed(api, place_of(options), told.sinks, around, steer=told.steer, lost=told.lost)
        self.election: Election | None = None
        self._own: OwnPod | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._metrics = metrics
        self._told = told
        if options.ha_enable_leader_election:
            timings = Timings(options.ha_lease_duration, options.ha_renew_deadline, options.ha_retry_period)
            lease = (options.pool_namespace, lease_name(options.pool_namespace, options.served_pool))
            who = new_identity(os.environ, socket.gethostname())
            self.election = Election(api, lease, who, timings, changed=self._leads)
            pod = (options.pool_namespace, options.pod_name or socket.gethostname())
            self._own = OwnPod(api, pod, around, self._deleted)
            metrics.leads(False)

    @property
    def leading(self) -> bool:
        """Whether this replica is the one to send requests to; without election every one is."""
        return self.election is None or self.election.leading

    @property
    def app_protocol(self) -> str:
        """What the pool says its endpoints speak; "" = nothing."""
        return self.feed.form.app_protocol if self.feed.form is not None else ""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self.feed.run(), name="discovery")
            if self.election is not None:
                self._tasks.create_task(self.election.run(), name="election")
            if self._own is not None:
                self._tasks.create_task(self._own.watch.run(), name="own pod")

    async def release(self) -> None:
        """Lead no more."""
        if self.election is not None:
            await self.election.release()

    async def close(self) -> None:
        await self.api.close()

    def shown(self) -> dict[str, Any]:  # JSON
        """For /debug/kubernetes."""
        now = time.monotonic()
        form = self.feed.form
        return {
            "server": self.api.host,
            "pool": None
            if form is None
            else {"selector": form.selector, "ports": form.ports, "appProtocol": form.app_protocol},
            "watches": [
                {
                    "resource": watch.kind.resource,
                    "phase": watch.phase,
                    "problem": watch.problem,
                    "objects": len(watch.known),
                    "broken": watch.broken,
                    "heard_s_ago": None if watch.heard_at is None else round(now - watch.heard_at, 3),
                }
                for watch in (*self.feed.watches(), *(() if self._own is None else (self._own.watch,)))
            ],
            "election": None if self.election is None else self.election.state,
        }

    def _deleted(self) -> None:
        """This pod is being deleted: gateways leave it already, so another should lead."""
        log.info("this pod is being deleted")
        if self._tasks is not None:
            self._tasks.create_task(self.release(), name="release")

    def _leads(self, leading: bool) -> None:
        self._metrics.leads(leading)
        self._told.stands()


async def connect(options: Options, told: Told, metrics: ClusterMetrics) -> Cluster:
    """Find the API server; nothing is asked yet. Raises CredentialsError."""
    # The official client takes 0.14 s and 19 MB, which a picker without Kubernetes need not spend.
    from epp.kube.client import Api

    return Cluster(await Api.connect(os.environ), options, told, metrics)


def place_of(options: Options) -> Place:
    """What the command line asks to serve."""
    return Place(
        options.pool_namespace,
        options.served_pool,
        options.pool_group,
        selector=options.endpoint_selector,
        ports=options.endpoint_target_ports,
    )
