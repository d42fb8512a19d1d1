"""A request's header block: HPACK, what RFC 9113 demands of it, and what it asks of gRPC."""

from __future__ import annotations

import re
from typing import Final, final

from epp.extproc.http2_codes import Broken, Error, Oversized, Status, StreamBroken, Undecodable
from epp.extproc.http2_hpack import Decoder, Field
from epp.extproc.http2_wire import RESPONSE, http_refusal, trailers

BLOCK_BYTES: Final = 16_384
LIST_BYTES: Final = 16_384
"""Longest header block, and list (names, values and 32 bytes each): what gRPC's core allows too."""
KEPT_BLOCKS: Final = 64
NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
OF_A_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# Kinds of fields. Those that come first, and once, are greater than all others.
MALFORMED: Final = -1
PLAIN: Final = 1
CONTENT_LENGTH: Final = 2
CONTENT_TYPE: Final = 3
GRPC_TIMEOUT: Final = 4
METHOD: Final = 5
SCHEME: Final = 6
PATH: Final = 7
AUTHORITY: Final = 8
KINDS = {
    b"content-length": CONTENT_LENGTH, b"content-type": CONTENT_TYPE, b"grpc-timeout": GRPC_TIMEOUT,
    b":method": METHOD, b":scheme": SCHEME, b":path": PATH, b":authority": AUTHORITY,
}  # fmt: skip


@final
class Opening:
    """What a stream's first block asks for. `length`: the content-length, or -1.

    `refusal`: the block that answers it, if it is no gRPC call.
    """

    __slots__ = ("length", "path", "refusal", "timeout_s")

    def __init__(self, path: str, timeout_s: float | None, length: int, refusal: bytes) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self.length = length
        self.refusal = refusal


@final
class HeaderReader:
    """Decodes the blocks of one connection, in order.

    A block that leaves the dynamic table as it was is a function of the table: until the table changes, the same bytes
    mean the same. Proxies repeat themselves, so most blocks are looked up.
    """

    __slots__ = ("_decoder", "_known")

    def __init__(self) -> None:
        self._decoder = Decoder(LIST_BYTES)
        self._known: dict[bytes, Opening] = {}

    def opening(self, block: bytes) -> Opening:
        """Raises Broken, or StreamBroken for a block that could be decoded but is malformed."""
        known = self._known.get(block)
        if known is not None:
            return known
        before = self._decoder.changes
        asked = opening(self._decoded(block))
        if self._decoder.changes == before and len(self._known) < KEPT_BLOCKS:
            self._known[block] = asked
        return asked

    def trailers(self, block: bytes) -> None:
        """Raises as `opening` does; what trailers say does not matter."""
        for field in self._decoded(block):
            if (field.kind or _look_at(field)) < 0:
                raise _malformed(field)
            if field.name.startswith(b":"):
                raise StreamBroken(Error.PROTOCOL_ERROR, f"{field.name!r} among trailers")

    def skip(self, block: bytes) -> None:
        """For a stream that is gone: keeps the table true. Raises Broken."""
        self._decoded(block)

    def _decoded(self, block: bytes) -> list[Field]:
        before = self._decoder.changes
        try:
            fields = self._decoder.decode(block)
        except Oversized:
            raise Broken(Error.ENHANCE_YOUR_CALM, f"headers are over {LIST_BYTES} bytes") from None
        except Undecodable as error:
            raise Broken(Error.COMPRESSION_ERROR, f"can't decode headers: {error}") from None
        if self._decoder.changes != before and self._known:
            self._known.clear()
        return fields


def opening(fields: list[Field]) -> Opening:
    """What the fields of a request ask for. Raises StreamBroken if they are malformed."""
    told: dict[int, bytes] = {}
    plain = False
    for field in fields:
        kind = field.kind or _look_at(field)
        if kind < 0:
            raise _malformed(field)
        if kind < METHOD:
            plain = True
        elif plain or kind in told:
            raise StreamBroken(Error.PROTOCOL_ERROR, f"{field.name!r} is not expected here")
        if kind > PLAIN:
            told[kind] = field.value
    if not told.get(PATH) or METHOD not in told or SCHEME not in told:
        raise StreamBroken(Error.PROTOCOL_ERROR, ":method, :scheme and :path must be there")
    return _asked(told)


def _asked(told: dict[int, bytes]) -> Opening:
    length = told.get(CONTENT_LENGTH, b"")
    if length and not (length.isdigit() and len(length) < 16):
        raise StreamBroken(Error.PROTOCOL_ERROR, "content-length is no number")
    refusal = _refusal(told[METHOD], told.get(CONTENT_TYPE, b""))
    asked = Opening(told[PATH].decode("latin1"), None, int(length) if length else -1, refusal)
    timeout = told.get(GRPC_TIMEOUT)
    if timeout is not None and not refusal:
        _bound(asked, timeout)
    return asked


def _look_at(field: Field) -> int:
    """The field's kind, which it keeps."""
    name, value = field.name, field.value
    kind = KINDS.get(name, 0)
    if not kind:
        kind = PLAIN if NAME.fullmatch(name) and name not in OF_A_CONNECTION else MALFORMED
        if name.startswith(b":") or (name == b"te" and value.lower() != b"trailers"):
            kind = MALFORMED
    if not VALUE.fullmatch(value):
        kind = MALFORMED
    field.kind = kind
    return kind


def _malformed(field: Field) -> StreamBroken:
    return StreamBroken(Error.PROTOCOL_ERROR, f"no header may be {field.name!r}: {field.value!r}")


def _bound(asked: Opening, timeout: bytes) -> None:
    """Read what the call's grpc-timeout tells."""
    matched = TIMEOUT.fullmatch(timeout)
    if matched:
        asked.timeout_s = int(matched[1]) * UNIT_S[matched[2]]
    else:
        told = f"grpc-timeout {timeout.decode('latin1')!r} can't be read"
        asked.refusal = RESPONSE + trailers(Status.INTERNAL, told)


def _refusal(method: bytes, content_type: bytes) -> bytes:
    if method != b"POST":
        return http_refusal(405, "gRPC calls are POST requests")
    if content_type == b"application/grpc":
        return b""
    kind = content_type.partition(b";")[0].partition(b"+")[0].strip().lower()
    return b"" if kind == b"application/grpc" else http_refusal(415, "only content-type application/grpc is served")
