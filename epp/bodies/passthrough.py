"""The fallback: any body, unread."""

from __future__ import annotations

from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.usage import Unread
from epp.headers import Headers


class PassthroughParser:
    """Takes whatever no other parser claims; neither the body nor the response is looked at."""

    paths: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        return Parsed(api="raw")

    def reader(self, content_type: str) -> ResponseReader:
        return Unread()
