"""What the deciding process has in the place of a listener for ext_proc: the edges, and the parent that starts them."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable
from functools import partial

from epp import plugin_files
from epp.config import Live
from epp.extproc import http2_calls as calls
from epp.extproc.health import HealthService
from epp.extproc.held import HeldBytes
from epp.extproc.http2_server import health_listener
from epp.extproc.readiness import Readiness
from epp.extproc.service import StreamWatch
from epp.extproc.tls import Certificates
from epp.obs.metrics_workers import WorkerMetrics
from epp.route import Router
from epp.types import Refused, Request
from epp.workers import control
from epp.workers import messages as say
from epp.workers.link import Link, joined
from epp.workers.reads import prompts_are_read
from epp.workers.session import Session
from epp.workers.shared import Elsewhere, SharedCounts

LOOK_S = 0.2
"""Between two looks at readiness and configuration on behalf of the edges."""
START_S = 30.0
"""The parent says at once where it listens."""
LAST_WORDS_S = 2.0
ABSENT = Refused(503, "the process that decides is not there; it is being started again", by="decider")
log = logging.getLogger("epp.workers")


class Decider:
    """Starts and stops as a server does; meets edges as the parent sends them."""

    def __init__(
        self,
        parent: socket.socket,
        router: Router,
        watch: StreamWatch,
        readiness: Readiness,
        live: Callable[[], Live],
        *,
        metrics: WorkerMetrics,
        held: HeldBytes,
        elected: bool,
    ) -> None:
        self._router, self._watch, self._readiness, self._live = router, watch, readiness, live
        self._metrics, self._held = metrics, held
        self._elected = elected
        self._sessions: dict[int, Session] = {}
        self._none = asyncio.Event()
        self._none.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._start: asyncio.Future[control.Start] = asyncio.get_running_loop().create_future()
        self._probes: say.Standing | None = None
        self._read: Live | None = None
        health = HealthService(readiness.ready, reachable=readiness.reachable, elected=elected)
        self._health = health_listener(calls.health(health))
        self._control = control.Control(parent, self._hear_parent, self._orphaned)

    async def start(self, port: int, health_port: int, certificates: Certificates | None) -> tuple[int, int]:
        """The ports in use; ext_proc's is the parent's, who listens, and certificates are the edges' business.

        Raises OSError naming the port.
        """
        try:
            async with asyncio.timeout(START_S):
                started = await self._start
        except TimeoutError:
            raise OSError(f"the parent did not say within {START_S:g} s where it listens") from None
        self._metrics.started("decider", started.number)
        bound = await self._health.start(health_port, "--grpc-health-port", None)
        self._control.say(control.Up())
        return started.port, bound

    async def run(self) -> None:
        """Tell the edges what changes, until cancelled."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_S)

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give open ones `grace_s`, then cut them. The health port goes last."""
        self._control.say(control.Leaving())
        for session in self._sessions.values():
            if session.link is not None:
                session.link.say(say.Stop(grace_s))
        try:
            async with asyncio.timeout(grace_s + LAST_WORDS_S):
                await self._none.wait()
        except TimeoutError:
            log.warning("edges did not end in time")
        for session in tuple(self._sessions.values()):
            session.close()
        await self._health.stop(0)

    # ---- the parent and the edges it sends

    def _hear_parent(self, message: control.Message, fds: list[int]) -> None:
        match message:
            case control.Start(_, edges) if not self._start.done():
                self._held.shared = Elsewhere(SharedCounts(fds[0], edges))
                self._start.set_result(message)
            case control.Join(edge, restarts):
                self._metrics.started(f"edge-{edge}", restarts)
                self._spawn(self._meet(edge, socket.socket(fileno=fds[0])))

    def _orphaned(self) -> None:
        """Nobody starts edges any more, or hands them clients."""
        log.error("the parent is gone")
        if not self._start.done():
            self._start.set_exception(OSError("the parent is gone"))
        for _ in range(2):  # there is nothing to drain any more
            os.kill(os.getpid(), signal.SIGTERM)

    async def _meet(self, edge: int, end: socket.socket) -> None:
        session = Session(self._router, self._watch, partial(self._tallied, edge))

        def lost() -> None:
            session.close()
            if self._sessions.get(edge) is session:
                del self._sessions[edge]
            if not self._sessions:
                self._none.set()

        def begun(link: Link[say.FromEdge]) -> None:
            # Before anything is heard: requests may wait in the socket already, and their answers need the link.
            session.link = link
            link.say(self._reading())
            link.say(self._standing())

        self._sessions[edge] = session
        self._none.clear()
        await joined(end, say.from_edge, session.hear, lost, begun)

    def _tallied(self, edge: int, tally: say.Tally) -> None:
        self._metrics.tallied(f"edge-{edge}", tally)
        for _ in range(tally.undecided):
            self._router.observer.refused(Request(received_at=time.monotonic()), ABSENT)

    def _look(self) -> None:
        probes, live = self._standing(), self._live()
        told: list[say.FromDecider] = []
        if probes != self._probes:
            told.append(probes)
        if live is not self._read:
            told.append(self._reading())
        self._probes, self._read = probes, live
        for session in self._sessions.values():
            for message in told:
                if session.link is not None:
                    session.link.say(message)

    def _standing(self) -> say.Standing:
        return say.Standing(self._readiness.ready(), self._readiness.reachable(), self._elected)

    def _reading(self) -> say.Reading:
        return reading(self._live())

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]  # a coroutine
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def reading(live: Live) -> say.Reading:
    """What edges must know of a configuration."""
    built = live.built
    known = {id(plugin.instance): plugin for plugin in built.setup.plugins.values()}
    parsers = [known[id(parser)] for parser in built.parsers.active]
    from_files = any(plugin.type.target.__module__.startswith(plugin_files.PACKAGE) for plugin in parsers)
    files = [(source.path, source.content) for source in live.reading.files] if from_files else []
    wanted = pickle.dumps([(plugin.type.type, dict(plugin.settings)) for plugin in parsers])
    return say.Reading(wanted, files, prompts=prompts_are_read(built.setup.plugins.values()))
