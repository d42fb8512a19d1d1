"""The nouns of the HTTP face: what was asked, what is being answered, and how an API spells both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sim.types import Job

_ERROR_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
}


class ApiError(Exception):
    """An answer that is an error, spelled as vLLM does."""

    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def body(self) -> Mapping[str, object]:
        fallback = "InternalServerError" if self.status >= 500 else "APIConnectionError"
        kind = _ERROR_TYPES.get(self.status, fallback)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}


@dataclass(frozen=True, slots=True)
class Ask:
    """A request body, whatever API it came by."""

    model: str
    prompts: tuple[bytes, ...]
    said: tuple[str, ...]
    """What the echo mode gives back for each prompt."""
    max_tokens: int | None
    stream: bool = False
    include_usage: bool = False
    choices: int = 1
    """Answers for each prompt."""
    ignore_eos: bool = False


@dataclass(slots=True)
class Choice:
    """One of the answers in the making."""

    index: int
    job: Job
    text: str
    pieces: list[bytes]
    """The text token by token, escaped for JSON."""
    finish_reason: str


@dataclass(slots=True)
class Reply:
    id: str
    created: int
    """Unix time."""
    model: str
    """As asked for."""
    ask: Ask
    choices: list[Choice]

    @property
    def prompt_tokens(self) -> int:
        """Each prompt once, however many answers it gets."""
        return sum([choice.job.prompt_tokens for choice in self.choices[:: self.ask.choices]])

    @property
    def cached_tokens(self) -> int:
        return sum([choice.job.cached_tokens for choice in self.choices[:: self.ask.choices]])

    @property
    def completion_tokens(self) -> int:
        return sum([choice.job.output_tokens for choice in self.choices])


@dataclass(frozen=True, slots=True)
class Api:
    """One API's spelling."""

    id_prefix: str
    parse: Callable[[bytes], Ask]
    """Raises ApiError."""
    whole: Callable[[Reply], object]
    """The JSON body when not streamed."""
    opening: Callable[[Reply], bytes]
    """What a stream begins with, in front of the first piece."""
    chunks: Callable[[Reply, Choice], Iterator[bytes]]
    """One event for each piece of a choice."""
    closing: Callable[[Reply], bytes]
    reports_load: bool = False
    """Whether the load report can be asked for."""


def sse(event: str, json: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.encode(), json)


def framed(pieces: Sequence[bytes], before: bytes, after: bytes, last: bytes) -> Iterator[bytes]:
    """Each piece between `before` and `after`, the last one between `before` and `last`."""
    for piece in pieces[:-1]:
        yield before + piece + after
    yield before + pieces[-1] + last
