"""The service that is offered, whichever transport serves it: its name, and who hears of its streams."""

from __future__ import annotations

from typing import Final, Protocol

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD: Final = f"/{SERVICE}/Process"


class StreamWatch(Protocol):
    """Hears of streams; codes are spelled as gRPC's Go library does (OK, Canceled, Internal)."""

    def stream_opened(self) -> None: ...

    def stream_closed(self, seconds: float, code: str) -> None: ...
