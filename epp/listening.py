"""A listening socket, whoever serves on it."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress

BACKLOG = 1_024


def listen(port: int, flag: str, host: str = "") -> socket.socket:
    """On `port` (0 = any) of `host`, "" = every address of IPv6 and IPv4, or of IPv4 where there is no IPv6.

    Raises OSError naming the port and the flag that asks for it.
    """
    try:
        return _listen(host, port)
    except OSError as error:
        # Python adds the address to the system's words.
        why = os.strerror(error.errno) if error.errno else str(error)
        remedy = (
            "end who listens there, or give another port" if error.errno == errno.EADDRINUSE else "give another one"
        )
        raise OSError(f"can't listen on port {port} ({flag}): {why}; {remedy}") from None


def _listen(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        # IPv6 may be compiled in and still switched off; a port that is taken fails again below.
        with suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)
