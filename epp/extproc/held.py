"""How many bytes of bodies are held at once: a limit each, a limit for all together."""

from __future__ import annotations

from typing import Protocol

from epp.types import Refused


class Shared(Protocol):
    """What other processes hold, where several share the limit for all together."""

    @property
    def elsewhere(self) -> int:
        """Bytes they hold."""

    def tell(self, held: int) -> None:
        """So much is held here."""


class HeldBytes:
    """The one count of body bytes held by a process. Law: taken = given back + held."""

    def __init__(self, *, body_limit: int, total_limit: int, shared: Shared | None = None) -> None:
        self.held = 0
        self.shared = shared
        self._body_limit = body_limit
        self._total_limit = total_limit

    @property
    def everywhere(self) -> int:
        """By all processes that share the limit."""
        return self.held + (0 if self.shared is None else self.shared.elsewhere)

    def take(self, size: int, so_far: int) -> None:
        """Hold `size` more bytes of a body of which `so_far` are held.

        Raises Refused(413) beyond one body's limit, Refused(503) beyond what all may hold; then nothing is taken.
        """
        if so_far + size > self._body_limit:
            raise Refused(413, f"request body is over {self._body_limit} bytes (--max-body-bytes)", by="body-limit")
        if self.everywhere + size > self._total_limit:
            raise Refused(
                503, f"request bodies together are over {self._total_limit} bytes (--max-held-bytes)", by="held-limit"
            )
        self._hold(size)

    def give(self, size: int) -> None:
        self._hold(-size)

    def _hold(self, more: int) -> None:
        self.held += more
        if self.shared is not None:
            self.shared.tell(self.held)
