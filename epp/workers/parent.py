"""The parent of `--workers N`: accepts connections, hands each to the least loaded edge, starts anew what died.

It decides nothing and keeps no state of requests, so that there is little in it that could fail: it outlives the
decider, and edges answer meanwhile. Whoever sends it a signal gets what one process would do.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

import uvloop

from epp.listening import listen
from epp.obs import logs
from epp.options import Options
from epp.workers import child, control
from epp.workers.shared import SharedCounts

FIRST_S, LONGEST_S = 0.1, 10.0
"""Before what died is started again: at first, and at most; it doubles each time it did not live."""
LIVED_S = 30.0
"""Whatever lived so long starts anew at once."""
KILL_S = 2.0
"""What is to end and has not by then is killed."""
UNSERVED_S = 5.0
"""So long clients wait in the kernel's queue for an edge; then they are turned away, since nobody else tells them."""
log = logging.getLogger("epp.workers")


def supervise(options: Options, words: Sequence[str]) -> int:
    """Serve until a signal; returns the exit code: the decider's, or 1 if the port can't be had."""
    logs.setup(options.verbosity)
    try:
        listening = listen(options.grpc_port, "--grpc-port")
    except OSError as error:
        log.error("can't serve: %s", error)
        return 1
    listening.setblocking(False)

    async def run() -> int:
        return await Parent(options.workers, words, listening).run()

    return uvloop.run(run())


class Worker:
    """One place for a process: who is in it, and how it fared."""

    def __init__(self, kind: str, number: int, ended: Callable[[Worker, int], None]) -> None:
        self.kind, self.number = kind, number
        self.name = kind if kind == "decider" else f"{kind}-{number}"
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.control: control.Control | None = None
        self.standing: control.Standing | None = None
        """Of an edge; None until it serves."""
        self.given = 0
        """Clients it was handed."""
        self._ended = ended
        self._pause_s = FIRST_S
        self._began = 0.0

    @property
    def load(self) -> tuple[int, int]:
        """Connections, those on their way to it included, and streams."""
        assert self.standing is not None
        return self.standing.clients + self.given - self.standing.got, self.standing.streams

    def start(self, words: Sequence[str], hear: Callable[[Worker, control.Message], None]) -> control.Control:
        loop = asyncio.get_running_loop()
        ours, theirs = control.pair()
        self.process = child.start(self.kind, words, theirs)
        theirs.close()
        self.starts += 1
        self._began, self.given, self.standing = loop.time(), 0, None
        self.control = control.Control(ours, lambda message, fds: hear(self, message), self._lost)
        return self.control

    def pause_s(self) -> float:
        """How long to wait before it is started again."""
        lived = asyncio.get_running_loop().time() - self._began
        self._pause_s = FIRST_S if lived > LIVED_S else min(2 * self._pause_s, LONGEST_S)
        return self._pause_s / 2

    def end(self) -> None:
        """At once."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    def _lost(self) -> None:
        """Its end of the socket is closed: it is gone, or about to be."""
        self.control, self.standing = None, None
        self._reap(0.0)

    def _reap(self, waited_s: float) -> None:
        if self.process is None:
            return
        code = self.process.poll()
        if code is None:
            if waited_s > KILL_S:
                self.process.kill()
            asyncio.get_running_loop().call_later(0.01, self._reap, waited_s + 0.01)
            return
        self.process = None
        self._ended(self, code)


class Parent:
    """Runs until the decider ended because it was told to, or could not start."""

    def __init__(self, count: int, words: Sequence[str], listening: socket.socket) -> None:
        self._words = words
        self._listening = listening
        self._counts = SharedCounts.made(count)
        self._decider = Worker("decider", 0, self._decider_ended)
        self._edges = [Worker("edge", number, self._edge_ended) for number in range(count)]
        self._up = False
        """There is a decider, and it has what it needs."""
        self._was_up = False
        self._stopping = False
        self._leaving = False
        """The decider ends, told to or not, and the edges with it: clients wait for the next."""
        self._accepting = False
        self._unserved = False
        """No edge has served for UNSERVED_S: clients are turned away until one does."""
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._pass_on, number)
        for worker in (self._decider, *self._edges):
            self._start(worker)
        code = await self._exit
        self._refuse_clients()
        for worker in (self._decider, *self._edges):
            worker.end()
        return code

    def _pass_on(self, number: signal.Signals) -> None:
        """The decider does what one process would do; without one there is nothing to drain."""
        self._stopping = self._stopping or number != signal.SIGHUP
        process = self._decider.process
        if process is not None:
            process.send_signal(number)
        elif self._stopping:
            self._finish(0)

    # ---- processes

    def _start(self, worker: Worker) -> None:
        if self._exit.done() or self._stopping:
            return
        told = worker.start(self._words, self._hear)
        number = worker.starts - 1 if worker is self._decider else worker.number
        port = self._listening.getsockname()[1]
        told.say(control.Start(number, len(self._edges), port), [self._counts.fd])
        if worker is not self._decider and self._up:
            self._introduce(worker)

    def _hear(self, worker: Worker, message: control.Message) -> None:
        match message:
            case control.Up():
                self._up = self._was_up = True
                self._leaving = False
                for edge in self._edges:
                    self._introduce(edge)
            case control.Standing():
                worker.standing = message
                self._unserved = False
                self._take_clients()
            case control.Leaving():
                self._leaving = True
                self._refuse_clients()
                # One that failed, or was told to stop past us, is followed by another, whose clients come here.
                if self._stopping:
                    self._listening.close()

    def _introduce(self, edge: Worker) -> None:
        """Edge and decider get the ends of a socket of their own."""
        decider = self._decider.control
        if edge.control is None or decider is None:
            return
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        join = control.Join(edge.number, edge.starts - 1)
        decider.say(join, [one.fileno()])
        edge.control.say(join, [other.fileno()])
        one.close()
        other.close()

    def _edge_ended(self, edge: Worker, code: int) -> None:
        self._counts[edge.number] = 0
        if self._stopping or self._exit.done():
            return
        if not self._was_up and code == 1:
            # It can't serve, and has said why.
            self._finish(1)
            return
        self._start_again(edge, code)

    def _decider_ended(self, decider: Worker, code: int) -> None:
        self._up = False
        if self._stopping or not self._was_up:
            self._finish(code if code >= 0 else 1)
        else:
            self._start_again(decider, code)

    def _start_again(self, worker: Worker, code: int) -> None:
        pause_s = worker.pause_s()
        why = f"signal {-code}" if code < 0 else f"exit code {code}"
        log.error("%s ended with %s; starting it again", worker.name, why, extra={"in_s": pause_s})
        if not self._unserved and not self._served:
            self._refuse_clients()
            asyncio.get_running_loop().call_later(UNSERVED_S, self._turn_away)
        asyncio.get_running_loop().call_later(pause_s, self._start, worker)

    def _finish(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code)

    # ---- clients

    def _take_clients(self) -> None:
        if not self._accepting and not self._leaving and self._listening.fileno() >= 0:
            self._accepting = True
            asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    @property
    def _served(self) -> bool:
        return any(edge.standing for edge in self._edges)

    def _turn_away(self) -> None:
        if not self._served and not self._unserved:
            log.warning("no edge serves: connections are closed until one does")
            self._unserved, self._leaving = True, False
            self._take_clients()

    def _refuse_clients(self) -> None:
        """They wait in the kernel's queue until somebody can take them."""
        if self._accepting:
            self._accepting = False
            asyncio.get_running_loop().remove_reader(self._listening.fileno())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client:
                self._hand_over(client)

    def _hand_over(self, client: socket.socket) -> None:
        ready = [edge for edge in self._edges if edge.standing is not None and edge.control is not None]
        for edge in sorted(ready, key=_load):
            if edge.control is not None and edge.control.say(control.Serve(), [client.fileno()]):
                edge.given += 1
                return
        if not self._unserved:
            log.warning("connection closed: no edge takes it")


def _load(edge: Worker) -> tuple[int, int]:
    return edge.load
