"""Width and height of an image from the first bytes of its data URL; nothing is decoded but the header."""

from __future__ import annotations

import binascii
from base64 import b64decode

HEADS = (1 << 11, 1 << 18)
"""Characters of base64 looked at first, and then: a JPEG may carry 64 KiB segments before its size."""
MOST_SEGMENTS = 64
"""Of a JPEG before its size."""
PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"
GIFS = (b"GIF87a", b"GIF89a")
JPEG_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
"""Markers between C0 and CF that are not a start of frame."""


def dimensions(content: str) -> tuple[int, int] | None:
    """(width, height) of a PNG, GIF or JPEG in a `data:image/…;base64,` URL or as bare base64; None for others."""
    start = 0
    if content.startswith("data:"):
        start = content.find("base64,", 0, 100) + len("base64,")
        if start < len("base64,") or not content.startswith("data:image/"):
            return None
    for characters in HEADS:
        try:
            width, height = _size(b64decode(content[start : start + characters]))
        except (binascii.Error, ValueError):
            return None
        if width and height:
            return width, height
    return None


def _size(head: bytes) -> tuple[int, int]:
    """(0, 0) where it can't be read."""
    if head.startswith(PNG):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head.startswith(GIFS):
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head.startswith(JPEG):
        return _jpeg_size(head)
    return 0, 0


def _jpeg_size(head: bytes) -> tuple[int, int]:
    """Walks the segments to the start of frame (ITU-T T.81, B.2.2)."""
    at = 2
    for _ in range(MOST_SEGMENTS):
        if at + 9 > len(head) or head[at] != 0xFF:
            break
        marker = head[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in JPEG_NO_FRAME:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        # 0xFF before a marker is fill; otherwise a segment's length counts itself but not its marker.
        at += 1 if marker == 0xFF else 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return 0, 0
