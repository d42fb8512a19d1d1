"""How many bytes of bodies are held at once: a limit each, a limit for all together."""

from __future__ import annotations

from epp.types import Refused


class HeldBytes:
    """The one count of body bytes held. Law: taken = given back + held."""

    def __init__(self, *, body_limit: int, total_limit: int) -> None:
        self.held = 0
        self._body_limit = body_limit
        self._total_limit = total_limit

    def take(self, size: int, so_far: int) -> None:
        """Hold `size` more bytes of a body of which `so_far` are held.

        Raises Refused(413) beyond one body's limit, Refused(503) beyond what all may hold; then nothing is taken.
        """
        if so_far + size > self._body_limit:
            raise Refused(413, f"request body is over {self._body_limit} bytes (--max-body-bytes)", by="body-limit")
        if self.held + size > self._total_limit:
            raise Refused(
                503, f"request bodies together are over {self._total_limit} bytes (--max-held-bytes)", by="held-limit"
            )
        self.held += size

    def give(self, size: int) -> None:
        self.held -= size
