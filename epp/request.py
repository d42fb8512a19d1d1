"""One inference request as plug-ins see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from epp.prompt import Prompt


@final
class Request:
    """One inference request as plug-ins see it. Header names are lower-case."""

    __slots__ = (
        "attributes", "body_bytes", "cache_salt", "fairness_id", "headers", "id", "incoming_model",
        "max_output_tokens", "model", "objective", "path", "priority", "prompts", "received_at", "slo_tpot_ms",
        "slo_ttft_ms", "stream",
    )  # fmt: skip

    def __init__(  # noqa: PLR0917 - fields of a record
        self,
        id: str = "",
        path: str = "/v1/completions",
        model: str = "",
        incoming_model: str = "",
        headers: Mapping[str, tuple[str, ...]] | None = None,
        prompts: Sequence[Prompt] = (),
        body_bytes: int = 0,
        stream: bool = False,
        max_output_tokens: int | None = None,
        cache_salt: str = "",
        objective: str = "",
        priority: int = 0,
        fairness_id: str = "",
        slo_ttft_ms: float | None = None,
        slo_tpot_ms: float | None = None,
        received_at: float = 0.0,
        attributes: dict[str, str] | None = None,
    ) -> None:
        self.id = id
        self.path = path
        self.model = model
        """What the engine will be asked for, after rewriting."""
        self.incoming_model = incoming_model
        self.headers: Mapping[str, tuple[str, ...]] = {} if headers is None else headers
        self.prompts = prompts
        """Empty once the answer is sent, and for bodies no parser understands."""
        self.body_bytes = body_bytes
        self.stream = stream
        self.max_output_tokens = max_output_tokens
        self.cache_salt = cache_salt
        """Empty once the answer is sent."""
        self.objective = objective
        self.priority = priority
        """Below 0 = sheddable."""
        self.fairness_id = fairness_id
        self.slo_ttft_ms = slo_ttft_ms
        self.slo_tpot_ms = slo_tpot_ms
        self.received_at = received_at
        """Seconds, on the clock that `now` uses."""
        self.attributes = {} if attributes is None else attributes
        """What plug-ins' `arrived` returned."""

    def header(self, name: str) -> str:
        """The last value of a header, "" if absent."""
        values = self.headers.get(name)
        return values[-1] if values else ""

    def __reduce__(self) -> tuple[type[Request], tuple[object, ...]]:
        """How it is copied."""
        return Request, (
            self.id, self.path, self.model, self.incoming_model, self.headers, self.prompts,
            self.body_bytes, self.stream, self.max_output_tokens, self.cache_salt, self.objective,
            self.priority, self.fairness_id, self.slo_ttft_ms, self.slo_tpot_ms, self.received_at,
            self.attributes,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"Request({self.id!r}, {self.path!r}, {self.model!r}, {self.body_bytes} bytes)"
