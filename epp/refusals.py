"""The ways a request may be refused."""

from __future__ import annotations

from math import isfinite
from operator import index
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epp.decision import Decision


class Refused(Exception):
    """A request that gets an answer instead of an endpoint.

    `status` is the HTTP status, `code` the word that opens the body text, `reason` the value of
    x-llm-d-request-dropped-reason ("" for none), `by` the plug-in or stage that refused, `retry_after_s` when it may
    be worth another try (None = can't be known).

    Raises TypeError where it is made of anything else: plug-ins make them too.
    """

    def __init__(
        self, status: int, message: str, reason: str = "", by: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = index(status)
        self.message = _sendable(message)
        self.reason = _sendable(reason)
        self.by = _sendable(by)
        self.retry_after_s = retry_after_s if retry_after_s is None or isfinite(retry_after_s) else None
        self.decision: Decision | None = None
        """How far the decision had come, if one had begun."""

    @property
    def code(self) -> str:
        return CODES.get(self.status, "Internal")

    @property
    def text(self) -> str:
        """The body of the answer."""
        return f"inference error: {self.code} - {self.message}"


def _sendable(text: str) -> str:
    """Half a surrogate pair can't be told to a client."""
    if not isinstance(text, str):
        raise TypeError(f"a refusal is told in text, not {type(text).__name__}")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class Evicted(Refused):
    """A request that was on its way and ends for a more important one."""

    def __init__(self) -> None:
        super().__init__(429, "request evicted by flow control", "evicted", "flow-control")

    @property
    def text(self) -> str:
        return self.message


CODES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    412: "PreconditionFailed",
    413: "PayloadTooLarge",
    429: "ResourceExhausted",
    500: "Internal",
    503: "ServiceUnavailable",
}
