"""The tables of RFC 7541: the static table (appendix A) and the Huffman code (appendix B) as a machine of nibbles."""

from __future__ import annotations

from typing import Final

# fmt: off
STATIC: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b":authority", b""), (b":method", b"GET"), (b":method", b"POST"), (b":path", b"/"), (b":path", b"/index.html"),
    (b":scheme", b"http"), (b":scheme", b"https"), (b":status", b"200"), (b":status", b"204"), (b":status", b"206"),
    (b":status", b"304"), (b":status", b"400"), (b":status", b"404"), (b":status", b"500"), (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"), (b"accept-language", b""), (b"accept-ranges", b""), (b"accept", b""),
    (b"access-control-allow-origin", b""), (b"age", b""), (b"allow", b""), (b"authorization", b""),
    (b"cache-control", b""), (b"content-disposition", b""), (b"content-encoding", b""), (b"content-language", b""),
    (b"content-length", b""), (b"content-location", b""), (b"content-range", b""), (b"content-type", b""),
    (b"cookie", b""), (b"date", b""), (b"etag", b""), (b"expect", b""), (b"expires", b""), (b"from", b""),
    (b"host", b""), (b"if-match", b""), (b"if-modified-since", b""), (b"if-none-match", b""), (b"if-range", b""),
    (b"if-unmodified-since", b""), (b"last-modified", b""), (b"link", b""), (b"location", b""),
    (b"max-forwards", b""), (b"proxy-authenticate", b""), (b"proxy-authorization", b""), (b"range", b""),
    (b"referer", b""), (b"refresh", b""), (b"retry-after", b""), (b"server", b""), (b"set-cookie", b""),
    (b"strict-transport-security", b""), (b"transfer-encoding", b""), (b"user-agent", b""), (b"vary", b""),
    (b"via", b""), (b"www-authenticate", b""),
)
"""Name and value of each entry; the first has index 1."""

BY_LENGTH: Final[tuple[tuple[int, bytes], ...]] = (
    (5, b"012aceiost"), (6, b" %-./3456789=A_bdfghlmnpru"), (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"), (8, b"&*,;XZ"),
    (10, b'!"()?'), (11, b"'+|"), (12, b"#>"), (13, b"\x00$@[]~"), (14, b"^}"), (15, b"<`{"), (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"), (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (22, b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\xc4\xc6\xe4\xe8\xe9"),
    (23, b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\xb4\xb6\xb7\xbc\xbf\xc5"
         b"\xe7\xef"),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"), (25, b"\xc7\xcf\xea\xeb"),
    (26, b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff"),
    (27, b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe"),
    (28, b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
         b"\xdc\xf9"),
    (30, b"\n\r\x16"),
)
"""Bits of a code, and the bytes whose codes are so long. Codes are canonical: they count up in this order."""
# fmt: on

NOTHING: Final = 0
BYTE: Final = 1
WRONG: Final = 2
"""What a nibble completes: no code, a byte's, or more ones than any byte has."""


def _machine() -> tuple[bytes, bytes, bytes, bytes]:
    """A state is a place within a code; at `state * 16 + nibble` are the next state, what is complete, and the byte."""
    inner, leaves = _tree()
    following, completes, symbols = bytearray(4096), bytearray(4096), bytearray(4096)
    for state, (length, code) in enumerate(inner):
        for nibble in range(16):
            place, at = (length, code), state * 16 + nibble
            for shift in (3, 2, 1, 0):
                place = place[0] + 1, place[1] << 1 | nibble >> shift & 1
                if place in leaves:
                    completes[at], symbols[at] = BYTE, leaves[place]
                    place = 0, 0
            if place in inner:
                following[at] = inner[place]
            else:
                completes[at] = WRONG
    # What is left at the end must be the beginning of a longer row of ones, and less than a byte.
    ends = bytes(length < 8 and code == (1 << length) - 1 for length, code in inner)
    return bytes(following), bytes(completes), bytes(symbols), ends


def _tree() -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    """The places within codes and their states, the root first; and the places where a byte's code is complete."""
    leaves: dict[tuple[int, int], int] = {}
    inner = {(0, 0): 0}
    code = before = 0
    for length, symbols in BY_LENGTH:
        code <<= length - before
        before = length
        for symbol in symbols:
            leaves[length, code] = symbol
            for bits in range(1, length):
                inner.setdefault((bits, code >> (length - bits)), len(inner))
            code += 1
    return inner, leaves


_MACHINE: Final = _machine()
NEXT: Final[bytes] = _MACHINE[0]
COMPLETES: Final[bytes] = _MACHINE[1]
SYMBOLS: Final[bytes] = _MACHINE[2]
ENDS: Final[bytes] = _MACHINE[3]
