"""Pods of one selector → changes of the endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from epp.feeds import Sink
from epp.feeds.kube_objects import endpoints_of
from epp.kube.records import Pod
from epp.kube.watch import Around, Changes, Kind, Server, Watch
from epp.types import Change, Endpoint

FLUSH_S = 0.02
"""Changes are passed on at most so often: each rebuilds the columns of up to a thousand endpoints."""


class PodFeed:
    """Follows the pods of a selector and tells the sinks, in their order, which endpoints there are.

    When the selector changes, the endpoints there are stay until the pods of the new one are listed.
    """

    def __init__(self, server: Server, namespace: str, sinks: Sequence[Sink], around: Around) -> None:
        self.watch: Watch[Pod] | None = None
        self._server = server
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._sinks = sinks
        self._around = around
        self._ports: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._published: dict[str, tuple[Endpoint, ...]] = {}
        """By pod name."""
        self._waiting: dict[str, Pod | None] = {}
        """Changes not yet passed on."""
        self._flush: asyncio.TimerHandle | None = None

    def follow(self, tasks: asyncio.TaskGroup, selector: str, ports: tuple[int, ...]) -> None:
        """From now on these pods at these ports."""
        self._ports = ports
        self._leave()
        query = {"labelSelector": selector} if selector else {}
        self.watch = Watch(self._server, Kind("pods", self._path, Pod, query), self, self._around)
        self._task = tasks.create_task(self.watch.run(), name="watch pods")

    def at_ports(self, ports: tuple[int, ...]) -> None:
        """The same pods at other ports."""
        self._ports = ports
        if self.watch is not None and self.watch.listed:
            self._replace(self.watch.known)

    def stop(self) -> None:
        """Nobody is an endpoint any more."""
        self._leave()
        self._replace({})

    def changed(self, changes: Changes[Pod]) -> None:
        """Pass on at once what comes alone, and together what comes right after it."""
        if self.watch is None or not self.watch.listed:
            # The first list is passed on as a whole, by `moved`.
            return
        self._waiting.update(changes)
        if self._flush is None:
            self._pass_on()

    def moved(self) -> None:
        if self.watch is not None and self.watch.listed and not self._task_done():
            self._replace(self.watch.known)

    def _task_done(self) -> bool:
        return self._task is not None and self._task.done()

    def _leave(self) -> None:
        self._waiting.clear()
        if self._flush is not None:
            self._flush.cancel()
        if self._task is not None:
            self._task.cancel()
        self.watch = self._task = self._flush = None

    def _pass_on(self) -> None:
        self._flush = None
        if self._waiting:
            changes, self._waiting = self._waiting, {}
            self._publish(changes)
            self._flush = asyncio.get_running_loop().call_later(FLUSH_S, self._pass_on)

    def _replace(self, pods: Mapping[str, Pod]) -> None:
        """These and no others; told even if nothing changed, for it is then known that there are none."""
        stray = {name: None for name in self._published if name not in pods}
        self._publish({**stray, **pods}, anyway=True)

    def _publish(self, changes: Changes[Pod], *, anyway: bool = False) -> None:
        present: list[Endpoint] = []
        gone: list[str] = []
        for name, pod in changes.items():
            before = self._published.pop(name, ())
            after = () if pod is None else endpoints_of(pod, self._ports)
            if after:
                self._published[name] = after
            if after != before:
                keys = {endpoint.key for endpoint in after}
                present += after
                gone += [endpoint.key for endpoint in before if endpoint.key not in keys]
        if present or gone or anyway:
            for sink in self._sinks:
                sink.apply(Change(tuple(present), tuple(gone)))
