"""The ways a request may be refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epp.decision import Decision


class Refused(Exception):
    """A request that gets an answer instead of an endpoint.

    `status` is the HTTP status, `code` the word that opens the body text, `reason` the value of
    x-llm-d-request-dropped-reason ("" for none), `by` the plug-in or stage that refused, `retry_after_s` when it may
    be worth another try (None = can't be known).
    """

    def __init__(
        self, status: int, message: str, reason: str = "", by: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.by = by
        self.retry_after_s = retry_after_s
        self.decision: Decision | None = None
        """How far the decision had come, if one had begun."""

    @property
    def code(self) -> str:
        return CODES.get(self.status, "Internal")

    @property
    def text(self) -> str:
        """The body of the answer."""
        return f"inference error: {self.code} - {self.message}"


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
