"""HTTP/2 on the wire: the numbers of RFC 9113, frames, and the few header blocks that are ever sent."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from epp.extproc.http2_codes import Broken, Error, Setting, Status

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
frame_head: Final[Callable[[int, int, int], bytes]] = struct.Struct(">LBL").pack
"""A frame's nine bytes: length and type in one number (length << 8 | type), flags, stream."""
FRAME_HEAD_BYTES: Final = 9
message_head: Final[Callable[[int, int], bytes]] = struct.Struct(">BL").pack
"""A gRPC message's five: compressed or not, length."""
MESSAGE_HEAD_BYTES: Final = 5
data_message_head: Final[Callable[[int, int, int, int, int], bytes]] = struct.Struct(">LBLBL").pack
"""Both at once: a DATA frame that holds one whole message."""

# Plain numbers, not an enum: they are compared for every frame.
DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITISED: Final = 0x20

MAX_STREAM: Final = 2**31 - 1
MAX_WINDOW: Final = 2**31 - 1
FRAME_BYTES: Final = 16_384
"""Largest frame payload we take: the protocol's default, as Envoy sends no larger ones."""
DEFAULT_WINDOW: Final = 65_535
LONGEST_MESSAGE: Final = 1_000
"""Bytes of a grpc-message: more helps nobody and may be over the client's header limit."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return frame_head(len(payload) << 8 | kind, flags, stream) + payload


def settings(values: dict[Setting, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HL", key, value) for key, value in values.items()))


def goaway(last_stream: int, code: Error, why: str = "") -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">LL", last_stream, code) + why.encode()[:200])


def reset(stream: int, code: Error) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">L", code))


def window_update(stream: int, size: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">L", size))


def unpadded(flags: int, payload: bytes) -> bytes:
    """The payload without its padding. Raises Broken if the padding is longer than the frame."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Broken(Error.PROTOCOL_ERROR, "the padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]


# Blocks are written without the dynamic table, so each is the same bytes on every connection. A literal that is not
# indexed starts with 0x00 and its name, or with 0x0f and (index - 15) of a name in the static table.


def _text(value: bytes) -> bytes:
    """A string of HPACK, not Huffman-coded, of up to 16,510 bytes."""
    if len(value) < 127:
        return bytes([len(value)]) + value
    rest = len(value) - 127
    return (bytes([127, rest]) if rest < 128 else bytes([127, rest & 127 | 128, rest >> 7])) + value


def _field(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _text(name) + _text(value)


def _http_status(status: int) -> bytes:
    return b"\x88" if status == 200 else b"\x08" + _text(str(status).encode())


CONTENT_TYPE: Final = b"\x0f\x10" + _text(b"application/grpc")
RESPONSE: Final = _http_status(200) + CONTENT_TYPE
"""The response's headers."""
NO_TABLE: Final = b"\x20"
"""Announces that the dynamic table has shrunk to nothing: a peer that allows less than the default must be told."""


def trailers(status: Status, message: str = "") -> bytes:
    """The block that ends a stream."""
    block = _field(b"grpc-status", str(int(status)).encode())
    return block + _field(b"grpc-message", percent_encoded(message)) if message else block


def http_refusal(status: int, message: str) -> bytes:
    """The block that answers what is no gRPC call."""
    told = trailers(Status.INTERNAL, message)
    return _http_status(status) + CONTENT_TYPE + told


OK: Final = trailers(Status.OK)


def percent_encoded(message: str) -> bytes:
    """As grpc-message wants it: printable ASCII as it is, the rest and % by their numbers."""
    coded = [_CODED[byte] for byte in message.encode("utf-8", "replace")]
    size = 0
    for count, one in enumerate(coded):
        size += len(one)
        if size > LONGEST_MESSAGE:
            return b"".join(coded[:count])
    return b"".join(coded)


_CODED = [
    bytes([byte]) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in range(256)
]  # fmt: skip
