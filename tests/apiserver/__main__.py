"""python -m tests.apiserver: the server as a process."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

import yaml

from tests.apiserver.certificates import server_context
from tests.apiserver.server import ApiServer


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.apiserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--crd", action="append", default=[], help="install this custom kind; may be repeated")
    parser.add_argument("--tls-dir", type=Path, help="holds tls.crt and tls.key; made there with ca.crt if missing")
    parser.add_argument("--rbac", type=Path, help='JSON: {"token": ["user", [rules]]}')
    parser.add_argument("--objects", type=Path, help="YAML: there from the start, written as they are, status included")
    parser.add_argument("--no-kubelet", action="store_true", help="pods vanish at once when deleted")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    rbac = json.loads(options.rbac.read_text()) if options.rbac else None
    server = ApiServer(crds=options.crd, rbac=rbac, kubelet=not options.no_kubelet, control=True)
    for one in yaml.safe_load_all(options.objects.read_text()) if options.objects else ():
        server.create(one)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await server.start(options.port, server_context(options.tls_dir) if options.tls_dir else None)
    sys.stdout.write(f"api server on {server.url}\n")
    sys.stdout.flush()
    await ended.wait()
    await server.stop()


if __name__ == "__main__":
    asyncio.run(_serve(_options()))
