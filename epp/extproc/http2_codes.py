"""The codes of HTTP/2 and gRPC, and the exceptions that carry one."""

from __future__ import annotations

from enum import IntEnum


class Error(IntEnum):
    """Error codes of RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    """Settings of RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class Status(IntEnum):
    """gRPC's status codes, as far as we send them."""

    OK = 0
    CANCELLED = 1
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14

    @property
    def in_go(self) -> str:
        """As gRPC's Go library spells it, which is how metrics are labelled."""
        return "OK" if self is Status.OK else _IN_GO.get(self.name) or self.name.title().replace("_", "")


_IN_GO = {"CANCELLED": "Canceled"}


class Broken(Exception):
    """The connection can't go on: it is told this code and closed."""

    def __init__(self, code: Error, why: str) -> None:
        super().__init__(why)
        self.code = code


class StreamBroken(Exception):
    """One stream can't go on: it is reset with this code."""

    def __init__(self, code: Error, why: str) -> None:
        super().__init__(why)
        self.code = code


class Failed(Exception):
    """The call ends with this status."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Undecodable(Exception):
    """A header block is no HPACK, or refers to what is not there. The table is not true any more."""


class Oversized(Undecodable):
    """The fields are longer than what is taken."""
