"""A process that the parent starts: one Python, told what it is by its command line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

PARENT = "EPP_PARENT_SOCKET"
"""The variable that names a decider's socket to its parent. Without it a process is nobody's child."""
_BEGIN = "import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); from {module} import main; sys.exit(main())"


def start(kind: str, words: Sequence[str], end: socket.socket) -> subprocess.Popen[bytes]:
    """An `edge` or `decider` with the parent's command line, with `end` as its way to the parent.

    In a group of its own: what a terminal sends to ours reaches it through us alone. Its import path is ours.
    """
    module = {"edge": "epp.workers.child", "decider": "epp.cli"}[kind]
    command = [sys.executable, "-P", "-c", _BEGIN.format(module=module), json.dumps(sys.path), *words]
    environ = {**os.environ, PARENT: str(end.fileno())}
    return subprocess.Popen(command, env=environ, pass_fds=[end.fileno()], process_group=0, stdin=subprocess.DEVNULL)


def parents_socket() -> socket.socket | None:
    """The way to the parent of this process, if it is a child."""
    number = os.environ.pop(PARENT, "")
    if not number:
        return None
    end = socket.socket(fileno=int(number))
    end.set_inheritable(False)
    return end


def main() -> int:
    """An edge. Exit code 1: it can't serve, whatever it is given."""
    import asyncio
    import gc
    import logging
    import signal

    import uvloop

    from epp.extproc.tls import CertificateError
    from epp.obs import logs
    from epp.options import parse
    from epp.workers.edge import Edge

    options = parse(sys.argv[1:], os.environ)
    logs.setup(options.verbosity)
    end = parents_socket()
    if end is None:
        raise SystemExit("an edge is started by `epp --workers N` alone")
    # Its end comes through the decider, or with its parent's.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    # As `epp.cli` does: what is loaded stays, and no full garbage collection need walk it.
    gc.collect()
    gc.freeze()

    async def live() -> None:
        await Edge(options, end).run()

    try:
        uvloop.run(live())
    except CertificateError as error:
        logging.getLogger("epp").error("can't serve: %s", error)
        return 1
    finally:
        asyncio.set_event_loop(None)
    return 0
