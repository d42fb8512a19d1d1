"""One inference request as plug-ins see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from epp.prompt import Prompt


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
