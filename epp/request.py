"""One inference request as plug-ins see it, and the ways it may be refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

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


class Media(Struct, frozen=True, array_like=True):
    """An image, video or audio part of a prompt."""

    kind: str
    """image, video or audio."""
    content: str
    """URL, data URL or base64 data, as sent."""


class Prompt(Struct, array_like=True):
    """One prompt, in order: text as UTF-8 bytes and media; or token ids as little-endian uint32 bytes."""

    parts: list[bytes | Media] = []
    token_ids: bytes | None = None


class Request(Struct, eq=False):
    """One inference request as plug-ins see it. Header names are lower-case."""

    id: str = ""
    path: str = "/v1/completions"
    model: str = ""
    """What the engine will be asked for, after rewriting."""
    incoming_model: str = ""
    headers: Mapping[str, tuple[str, ...]] = {}
    prompts: Sequence[Prompt] = ()
    """Empty once the answer is sent, and for bodies no parser understands."""
    body_bytes: int = 0
    stream: bool = False
    max_output_tokens: int | None = None
    cache_salt: str = ""
    objective: str = ""
    priority: int = 0
    """Below 0 = sheddable."""
    fairness_id: str = ""
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    received_at: float = 0.0
    """Seconds, on the clock that `now` uses."""
    attributes: dict[str, str] = {}
    """What plug-ins' `arrived` returned."""

    def header(self, name: str) -> str:
        """The last value of a header, "" if absent."""
        values = self.headers.get(name)
        return values[-1] if values else ""


class Usage(Struct, frozen=True, array_like=True):
    """Token counts an engine reported. None = not told."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None
