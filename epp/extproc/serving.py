"""What serves ext_proc, whichever transport it speaks."""

from __future__ import annotations

from typing import Protocol

from epp.extproc.tls import Certificates


class Server(Protocol):
    """The ext_proc listener and, beside it, the health listener."""

    async def start(self, port: int, health_port: int, certificates: Certificates | None) -> tuple[int, int]:
        """Listen on all addresses; None = plaintext. Returns the ports. Raises OSError naming the port."""

    async def stop(self, grace_s: float) -> None:
        """Take no new streams, give open ones `grace_s`, then cut them. The health port goes last."""
