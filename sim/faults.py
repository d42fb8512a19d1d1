"""Failures on purpose: what people know from llm-d's simulator, and whole-engine faults that last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from random import Random

from sim.api import ApiError

FAILURES = {
    "rate_limit": (429, "Rate limit reached, try again later.", None),
    "invalid_api_key": (401, "Incorrect API key provided.", None),
    "context_length": (400, "The messages exceed the maximum context length.", "messages"),
    "server_error": (503, "The server is overloaded or not ready yet.", None),
    "invalid_request": (400, "The request is missing a valid model.", "model"),
    "model_not_found": (404, "The requested model was not found.", "model"),
}
"""Name → status, message, param."""


class Fault(Enum):
    """What is wrong with the whole engine. Metrics, health and administration go on, save while it refuses."""

    NONE = "none"
    ERROR = "error"
    """Answers 500 at once."""
    HANG = "hang"
    """Never answers."""
    REFUSE = "refuse"
    """Closes its port and every connection; needs fault-duration, since nobody could switch it back."""


@dataclass(slots=True)
class Faults:
    """What fails; changed at run time by /admin/config."""

    rate: float = 0.0
    """Percent of requests, 0 … 100."""
    types: Sequence[str] = tuple(FAILURES)
    fault: Fault = Fault.NONE

    def check(self, return_error: str | None, rng: Random) -> None:
        """Raise the ApiError that a request must fail with. `return_error` is its X-Return-Error header."""
        if return_error is not None:
            raise _requested(return_error)
        if self.fault is Fault.ERROR:
            raise ApiError(500, "The engine has failed.")
        if self.rate > 0 and rng.random() * 100 < self.rate:
            raise ApiError(*FAILURES[rng.choice(self.types)])


def _requested(status: str) -> ApiError:
    if status.isascii() and status.isdigit() and 400 <= int(status) <= 599:
        return ApiError(int(status), f"Error {status} as asked for in X-Return-Error.")
    return ApiError(400, f"X-Return-Error must be a status from 400 to 599, got {status!r}.")
