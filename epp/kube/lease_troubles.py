"""What goes wrong with the lease, told when it begins, changes and ends, not at every attempt."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

from epp.kube import ApiError

TOLD_AGAIN_S = 60.0
"""The same trouble is told once in so long."""
ROLE = "a Role in that namespace must allow get, list, watch, create, update and patch on leases of coordination.k8s.io"

log = logging.getLogger(__name__)


class Troubles:
    """What goes wrong, told when it begins, changes and ends."""

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what = what
        self._clock = clock
        self._met: dict[str, str] = {}
        self._told_at: dict[tuple[str, int, str], float] = {}

    @property
    def last(self) -> str:
        """ "" if all is well."""
        return next(reversed(self._met.values()), "")

    def met(self, verb: str, error: ApiError) -> None:
        text = f"can't {verb} {self._what}: {error.message}"
        if error.status == 403:
            text += f"; {ROLE}"
        self._met.pop(verb, None)
        self._met[verb] = text
        kind, now = (verb, error.status, error.reason), self._clock()
        if now - self._told_at.get(kind, -math.inf) >= TOLD_AGAIN_S:
            log.warning("%s", text)
            self._told_at[kind] = now

    def gone(self, verb: str) -> None:
        if self._met.pop(verb, None):
            log.info("can %s %s again", verb, self._what)
