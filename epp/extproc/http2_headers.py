"""A request's header block: HPACK, what RFC 9113 demands of it, and what it asks of gRPC."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from epp.extproc.http2_codes import Broken, Error, Status, StreamBroken
from epp.extproc.http2_wire import RESPONSE, http_refusal, trailers

BLOCK_BYTES = LIST_BYTES = 16_384
"""Longest header block, and list (names, values and 32 bytes each): what gRPC's core allows too."""
KEPT_BLOCKS = 64
NAME = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE = re.compile(rb"(?:[^\x00\r\n\t ](?:[^\x00\r\n]*[^\x00\r\n\t ])?)?")
PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
OF_A_CONNECTION = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})
TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
UNIT_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
Fields = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Opening:
    """What a stream's first block asks for."""

    path: str
    timeout_s: float | None = None
    length: int = -1
    """The content-length, or -1."""
    refusal: bytes = b""
    """The block that answers it, if it is no gRPC call."""


class HeaderReader:
    """Decodes the blocks of one connection, in order.

    A block that leaves the dynamic table as it was is a function of the table: until the table changes, the same bytes
    mean the same. Proxies repeat themselves, so most blocks are looked up.
    """

    __slots__ = ("_decoder", "_known")

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=LIST_BYTES)
        self._known: dict[bytes, Opening] = {}

    def opening(self, block: bytes) -> Opening:
        """Raises Broken, or StreamBroken for a block that could be decoded but is malformed."""
        return self._known.get(block) or self._decoded(block, opening)

    def trailers(self, block: bytes) -> None:
        """Raises as `opening` does; what trailers say does not matter."""
        self._decoded(block, _no_pseudo)

    def skip(self, block: bytes) -> None:
        """For a stream that is gone: keeps the table true. Raises Broken."""
        self._decoded(block, lambda _: None)

    def _decoded(self, block: bytes, read: Callable[[Fields], Opening | None]) -> Opening:
        table = self._decoder.header_table
        before = _state(table)
        try:
            fields = self._decoder.decode(block, raw=True)
        except OversizedHeaderListError:
            raise Broken(Error.ENHANCE_YOUR_CALM, f"headers are over {LIST_BYTES} bytes") from None
        except (HPACKError, IndexError, ValueError) as error:
            raise Broken(Error.COMPRESSION_ERROR, f"can't decode headers: {error}") from None
        after = _state(table)
        changed = before[0] is not after[0] or before[1:] != after[1:]
        if changed:
            self._known.clear()
        meant = read(fields) or _NOTHING
        if not changed and read is opening and len(self._known) < KEPT_BLOCKS:
            self._known[block] = meant
        return meant


_NOTHING = Opening("")


def _state(table: HeaderTable) -> tuple[object, int, int]:
    """Differs whenever the table does: each new entry comes first and is another object."""
    entries = table.dynamic_entries
    return entries[0] if entries else None, len(entries), table.maxsize


def opening(fields: Fields) -> Opening:
    """What the fields of a request ask for. Raises StreamBroken if they are malformed."""
    pseudo: dict[bytes, bytes] = {}
    plain: dict[bytes, bytes] = {}
    for name, value in fields:
        _valid(name, value)
        if not name.startswith(b":"):
            plain[name] = value
        elif plain or name in pseudo or name not in PSEUDO:
            raise _malformed(f"{name!r} is not expected here")
        else:
            pseudo[name] = value
    if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
        raise _malformed(":method, :scheme and :path must be there")
    return _asked(pseudo, plain)


def _valid(name: bytes, value: bytes) -> None:
    if not NAME.fullmatch(name) or name in OF_A_CONNECTION:
        raise _malformed(f"no header may be named {name!r}")
    if not VALUE.fullmatch(value) or (name == b"te" and value.lower() != b"trailers"):
        raise _malformed(f"header {name!r} may not be {value!r}")


def _no_pseudo(fields: Fields) -> None:
    for name, value in fields:
        _valid(name, value)
        if name.startswith(b":"):
            raise _malformed(f"{name!r} among trailers")


def _malformed(why: str) -> StreamBroken:
    return StreamBroken(Error.PROTOCOL_ERROR, why)


def _asked(pseudo: dict[bytes, bytes], plain: dict[bytes, bytes]) -> Opening:
    length = plain.get(b"content-length", b"")
    if length and not (length.isdigit() and len(length) < 16):
        raise _malformed("content-length is no number")
    told, timeout_s = plain.get(b"grpc-timeout"), None
    refusal = _refusal(pseudo[b":method"], plain.get(b"content-type", b""))
    if told is not None and not refusal:
        matched = TIMEOUT.fullmatch(told)
        if matched:
            timeout_s = int(matched[1]) * UNIT_S[matched[2]]
        else:
            refusal = RESPONSE + trailers(Status.INTERNAL, f"grpc-timeout {told.decode('latin1')!r} can't be read")
    return Opening(pseudo[b":path"].decode("latin1"), timeout_s, int(length) if length else -1, refusal)


def _refusal(method: bytes, content_type: bytes) -> bytes:
    if method != b"POST":
        return http_refusal(405, "gRPC calls are POST requests")
    kind = content_type.partition(b";")[0].partition(b"+")[0].strip().lower()
    return b"" if kind == b"application/grpc" else http_refusal(415, "only content-type application/grpc is served")
