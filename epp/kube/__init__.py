"""The Kubernetes API server: transport, list and watch, leases, reviews. What objects mean is the feeds' business."""

from __future__ import annotations

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises at what no API server says."""


class ApiError(Exception):
    """The API server refused a request, or did not answer it.

    `status` is the HTTP status, 0 if there was no answer at all; `reason` the machine-readable word of its Status
    object (NotFound, Conflict, Forbidden, Expired …), "" if it sent none.
    """

    def __init__(self, status: int, message: str, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        """What the server asked for, with 429 and 503."""

    @property
    def expired(self) -> bool:
        """What was asked for is no longer kept: list anew."""
        return self.status == 410 or self.reason in {"Expired", "Gone"}


class CredentialsError(Exception):
    """Nothing tells where the API server is, or what does can't be used; the text names it and the remedy."""
