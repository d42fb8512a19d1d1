"""InferenceObjectives and InferenceModelRewrites of our pool → Steering."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from epp.feeds.kube_objects import Ours, model_rewrites, priorities
from epp.kube.records import InferenceModelRewrite, InferenceObjective, Record
from epp.kube.watch import Around, Changes, Kind, Server, Watch
from epp.rewrites import Rewrites, Steering

log = logging.getLogger("epp.kube")
R = TypeVar("R", bound=Record)
GROUPS = ("llm-d.ai", "inference.networking.x-k8s.io")
"""The preferred one first: objects of the other count only where the server does not have that kind in it."""


class Either(Generic[R]):
    """One kind that may live in either group."""

    def __init__(self, watches: tuple[Watch[R], Watch[R]]) -> None:
        self.watches = watches
        self._warned = False

    def known(self) -> list[R]:
        """The objects that count."""
        preferred, other = self.watches
        if preferred.phase in {"absent", "forbidden"}:
            return list(other.known.values())
        if preferred.listed and other.known and not self._warned:
            self._warned = True
            text = "%d %s are ignored, since %s is there; move them to that group"
            log.warning(text, len(other.known), other.kind.resource, preferred.kind.resource)
        return list(preferred.known.values())


class SteeringFeed:
    """`steer` hears what is in force, each time that it changes."""

    def __init__(
        self, server: Server, namespace: str, ours: Ours, around: Around, steer: Callable[[Steering], None]
    ) -> None:
        self._ours = ours
        self._steer = steer
        self._ruling: list[InferenceModelRewrite] = []
        """What `_rules` were made of: making them anew for each change of an objective takes 10 ms for a thousand."""
        self._rules = Rewrites()

        def either(plural: str, record: type[R]) -> Either[R]:
            def watch(group: str) -> Watch[R]:
                path = f"/apis/{group}/v1alpha2/namespaces/{namespace}/{plural}"
                return Watch(server, Kind(f"{plural}.{group}", path, record), self, around)

            return Either((watch(GROUPS[0]), watch(GROUPS[1])))

        self._objectives = either("inferenceobjectives", InferenceObjective)
        self._rewrites = either("inferencemodelrewrites", InferenceModelRewrite)

    def watches(self) -> Iterator[Watch[Any]]:  # of several kinds
        yield from (*self._objectives.watches, *self._rewrites.watches)

    def changed(self, changes: Changes[Any]) -> None:  # of several kinds
        self._tell()

    def moved(self) -> None:
        self._tell()

    def _tell(self) -> None:
        ruling = self._rewrites.known()
        if ruling != self._ruling:
            self._ruling, self._rules = ruling, Rewrites(model_rewrites(ruling, self._ours))
        self._steer(Steering(priorities(self._objectives.known(), self._ours), self._rules))
