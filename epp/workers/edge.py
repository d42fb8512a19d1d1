"""One edge process: HTTP/2, TLS, bodies and responses of the clients it is given; what to do it asks the decider."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import ssl
import time
from typing import Any

from epp.bodies.registry import Parsers
from epp.extproc import http2_calls as calls
from epp.extproc.dialogue import Dialogue
from epp.extproc.health import HealthService
from epp.extproc.held import HeldBytes
from epp.extproc.http2_limits import Budget, Limits
from epp.extproc.http2_server import GOAWAY_S, Clients
from epp.extproc.http2_upkeep import GREETING_S
from epp.extproc.tls import Certificates, Terms, server_context
from epp.options import Options
from epp.plugin_files import PluginFiles, Source
from epp.plugins import Catalogue, shown
from epp.rules import Habits
from epp.workers import control
from epp.workers import messages as say
from epp.workers.link import Link, joined
from epp.workers.remote import RemoteDesk
from epp.workers.shared import SharedCounts, Slot

STREAMS = 256
"""Open on one connection at most: a gateway with more opens another, which another edge may get."""
TELL_S = 0.25
"""Between two tallies."""
LAST_WORDS_S = 2.0
"""How long what was said last may take to leave."""
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
log = logging.getLogger("epp.workers")


class Watch:
    """Counts streams for the next Tally."""

    def __init__(self) -> None:
        self.count = self.opened = 0
        self.closed: list[tuple[float, str]] = []

    def stream_opened(self) -> None:
        self.count += 1
        self.opened += 1

    def stream_closed(self, seconds: float, code: str) -> None:
        self.count -= 1
        self.closed.append((seconds, code))


class Edge:
    """Lives until the decider says that it is to stop, or its parent is gone."""

    def __init__(self, options: Options, end: socket.socket) -> None:
        self._options = options
        self._watch = Watch()
        self._desk = RemoteDesk(_habits(options))
        self._held: HeldBytes | None = None
        self._clients: Clients | None = None
        self._health = HealthService(lambda: self._probes.ready, reachable=lambda: self._probes.reachable)
        self._got = 0
        self._told: control.Standing | None = None
        self._serves = False
        self._probes = say.Standing(ready=False, reachable=False, elected=False)
        self._files: tuple[Source, ...] = ()
        self._catalogue = Catalogue.installed()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._lags: list[float] = []
        self._tls = _tls(options)
        self._control = control.Control(end, self._hear_parent, self._over.set)

    async def run(self) -> None:
        chores = asyncio.create_task(self._tell_often(), name="tally")
        await self._over.wait()
        chores.cancel()
        self._control.close()

    # ---- the parent's side

    def _hear_parent(self, message: control.Message, fds: list[int]) -> None:
        match message:
            case control.Start(number, edges):
                self._begin(SharedCounts(fds[0], edges), number, edges)
            case control.Join():
                self._spawn(self._join(socket.socket(fileno=fds[0])), "join")
            case control.Serve():
                self._got += 1
                self._spawn(self._serve(socket.socket(fileno=fds[0])), "accept")

    def _begin(self, counts: SharedCounts, number: int, edges: int) -> None:
        options = self._options
        self._held = HeldBytes(
            body_limit=options.max_body_bytes, total_limit=options.max_held_bytes, shared=Slot(counts, number)
        )
        self._clients = Clients(
            {**calls.process(self._dialogue, self._watch, time.monotonic), **calls.health(self._health)},
            Limits(options.max_recv_bytes, options.max_send_bytes, announced=STREAMS),
            Budget(max(options.max_held_bytes // edges, options.max_recv_bytes)),
        )
        self._clients.tick()

    def _dialogue(self) -> Dialogue:
        assert self._held is not None
        return Dialogue(self._desk, self._held)

    async def _serve(self, client: socket.socket) -> None:
        if self._clients is None:
            client.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._clients.peer,
                client,
                ssl=self._tls,
                ssl_handshake_timeout=GREETING_S if self._tls else None,
                ssl_shutdown_timeout=GOAWAY_S if self._tls else None,
            )
        except (OSError, ssl.SSLError) as error:
            log.debug("no connection: %s", error)

    def _stand(self) -> None:
        """Tell the parent how busy this is, once it can serve."""
        if self._clients is None or not self._serves:
            return
        standing = control.Standing(self._got, len(self._clients.live.peers), self._watch.count)
        if standing != self._told and self._control.say(standing):
            self._told = standing

    # ---- the decider's side

    async def _join(self, end: socket.socket) -> None:
        links: list[Link[say.FromDecider]] = []

        def lost() -> None:
            if self._desk.link in links:
                self._desk.abandoned()
                self._probes = say.Standing(ready=False, reachable=False, elected=self._probes.elected)
                log.warning("the decider is gone")

        links.append(await joined(end, say.from_decider, self._hear, lost))
        if links[0].alive:
            if self._desk.link is not None:
                # The decider before this one has died; its end has not been read yet, and nobody answers any more.
                self._desk.abandoned()
            self._desk.link = links[0]
            # This decider has heard of none of the streams that are open.
            self._watch.opened, self._watch.closed = self._watch.count, []
            self._tell()

    def _hear(self, message: say.FromDecider) -> None:
        match message:
            case say.Standing():
                self._probes = message
                self._health.elected = message.elected
            case say.Reading(parsers, files, prompts):
                self._read_as(parsers, tuple([Source(path, content) for path, content in files]))
                self._desk.prompts = prompts
                self._serves = True
                self._stand()
            case say.Stop(grace_s):
                self._spawn(self._stop(grace_s), "stop")
            case _:
                self._desk.hear(message)

    def _read_as(self, wanted: bytes, files: tuple[Source, ...]) -> None:
        """Other parsers are in force; if they can't be made, the former stay."""
        try:
            if files != self._files:
                self._catalogue = Catalogue.installed().joined(PluginFiles(files).points)
                self._files = files
            # What our own decider pickled.
            given: list[tuple[str, dict[str, Any]]] = pickle.loads(wanted)
            self._desk.parsers = Parsers([self._catalogue.find(kind).target(**told) for kind, told in given])
        except Exception as error:  # noqa: BLE001 - a stranger's parser
            log.error("the parsers before stay in force: %s", shown(error))

    async def _stop(self, grace_s: float) -> None:
        if self._clients is not None:
            await self._clients.stop(grace_s)
        link = self._desk.link
        if link is not None:
            self._tell(over=True)
            link.close()
        self._over.set()

    # ---- tallies

    async def _tell_often(self) -> None:
        while True:
            asleep_at = time.monotonic()
            await asyncio.sleep(TELL_S)
            self._lags.append(max(0.0, time.monotonic() - asleep_at - TELL_S))
            self._stand()
            self._tell()

    def _tell(self, *, over: bool = False) -> None:
        desk, watch = self._desk, self._watch
        if desk.link is None or self._clients is None:
            self._lags, watch.closed = [], []
            return
        used = os.times()
        desk.link.say(
            say.Tally(
                watch.opened,
                watch.closed,
                desk.wrapped,
                desk.read,
                self._lags,
                desk.undecided,
                len(self._clients.live.peers),
                used.user + used.system,
                _resident_bytes(),
                watch.count,
                over,
            )
        )
        watch.opened, watch.closed, self._lags = 0, [], []
        desk.wrapped = desk.read = desk.undecided = 0

    def _spawn(self, work: Any, name: str) -> None:  # a coroutine
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _tls(options: Options) -> ssl.SSLContext | None:
    """Raises CertificateError."""
    if not options.secure_serving:
        return None
    # The files are followed even without --enable-cert-reload: a rotated certificate must not end the service.
    shown_pair = Certificates(options.cert_path, reload=True, rsa_key=options.needs_rsa)
    return server_context(shown_pair, terms(options))


def terms(options: Options) -> Terms:
    return Terms(minimum=options.tls_min_version, ciphers=options.openssl_ciphers, alpn=("h2",))


def _resident_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * PAGE_BYTES


def _habits(options: Options) -> Habits:
    whole = options.response_phase == "full"
    return Habits(load_report=options.load_report and whole, whole_response=whole)
