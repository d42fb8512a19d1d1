"""HPACK (RFC 7541), the receiving half: header blocks to fields, with the dynamic table that is kept between them."""

from __future__ import annotations

from typing import Final, final

from epp.extproc.http2_codes import Oversized, Undecodable
from epp.extproc.http2_hpack_tables import COMPLETES, ENDS, NEXT, STATIC, SYMBOLS, WRONG

TABLE_BYTES: Final = 4_096
"""What the dynamic table may hold: the protocol's default, and no more is announced."""
ENTRY_BYTES: Final = 32
"""What a field counts beside its name and value."""
KEPT_LITERALS: Final = 64
KEPT_BYTES: Final = 256
"""Longest literal that is kept."""
INTEGER_OCTETS: Final = 5
"""After the first."""


@final
class Field:
    """A name and a value. `kind` is for who reads it: what it found the field to be, 0 = not looked at."""

    __slots__ = ("kind", "name", "size", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.size = len(name) + len(value) + ENTRY_BYTES
        self.kind = 0


_STATIC: Final[list[Field]] = [Field(b"", b"")] + [Field(name, value) for name, value in STATIC]


@final
class Decoder:
    """Decodes the blocks of one connection, in order. `changes` counts what has changed the dynamic table.

    Literals that refer to nothing in that table and do not enter it mean the same for ever, and proxies repeat
    themselves: what they meant is kept by their bytes.
    """

    __slots__ = ("_at", "_entries", "_held", "_list_bytes", "_literals", "_room", "changes")

    def __init__(self, list_bytes: int) -> None:
        self.changes = 0
        self._list_bytes = list_bytes
        self._entries: list[Field] = []
        """The dynamic table, the newest last."""
        self._held = 0
        self._room = TABLE_BYTES
        self._literals: dict[bytes, Field] = {}
        self._at = 0
        """Where in the block the next octet is."""

    def decode(self, block: bytes) -> list[Field]:
        """Raises Undecodable."""
        fields: list[Field] = []
        self._at = 0
        end, size = len(block), 0
        while self._at < end:
            first = block[self._at]
            if first & 0x80:
                field = self._entry(self._integer(block, 0x7F))
            elif first & 0x40:
                field = self._literal(block, 0x3F)
                self._add(field)
            elif first & 0x20:
                self._resize(self._integer(block, 0x1F), first=not fields)
                continue
            else:
                field = self._lasting(block)
            fields.append(field)
            size += field.size
            if size > self._list_bytes:
                raise Oversized(f"a header list of over {self._list_bytes} bytes")
        return fields

    # ---- the table

    def _entry(self, index: int) -> Field:
        if index <= len(STATIC):
            if index:
                return _STATIC[index]
        elif index - len(STATIC) <= len(self._entries):
            return self._entries[len(self._entries) + len(STATIC) - index]
        raise Undecodable(f"there is no entry {index} in the table")

    def _add(self, field: Field) -> None:
        """One that is larger than the table empties it."""
        self.changes += 1
        self._entries.append(field)
        self._held += field.size
        if self._held > self._room:
            self._shrink()

    def _resize(self, room: int, *, first: bool) -> None:
        if not first:
            raise Undecodable("the size of the table changes within a block")
        if room > TABLE_BYTES:
            raise Undecodable(f"a table of {room} bytes, where {TABLE_BYTES} are allowed")
        self.changes += room != self._room
        self._room = room
        self._shrink()

    def _shrink(self) -> None:
        gone, entries = 0, self._entries
        while self._held > self._room:
            self._held -= entries[gone].size
            gone += 1
        del entries[:gone]

    # ---- literals

    def _lasting(self, block: bytes) -> Field:
        """A literal that does not enter the table."""
        start = self._at
        index = block[start] & 0x0F
        if index == 0x0F and len(block) > start + 1 and block[start + 1] > len(STATIC) - 0x0F:
            return self._literal(block, 0x0F)
        self._skip_literal(block)
        wire = block[start : self._at]
        known = self._literals.get(wire)
        if known is None:
            self._at = start
            known = self._literal(block, 0x0F)
            if len(wire) <= KEPT_BYTES:
                if len(self._literals) >= KEPT_LITERALS:
                    self._literals.clear()
                self._literals[wire] = known
        return known

    def _skip_literal(self, block: bytes) -> None:
        if not self._integer(block, 0x0F):
            self._skip_text(block)
        self._skip_text(block)

    def _skip_text(self, block: bytes) -> None:
        length = self._length(block)
        self._at += length

    def _literal(self, block: bytes, mask: int) -> Field:
        index = self._integer(block, mask)
        name = self._entry(index).name if index else self._text(block)
        return Field(name, self._text(block))

    def _text(self, block: bytes) -> bytes:
        coded = self._at < len(block) and block[self._at] & 0x80
        length = self._length(block)
        start = self._at
        self._at += length
        text = block[start : self._at]
        return unhuffed(text) if coded else text

    def _length(self, block: bytes) -> int:
        """Of the text that begins here; all of it is there."""
        length = self._integer(block, 0x7F)
        if length > len(block) - self._at:
            raise Undecodable("a text ends after the block")
        return length

    def _integer(self, block: bytes, mask: int) -> int:
        """The number whose first octet is here, in the bits of `mask`."""
        at, end = self._at, len(block)
        if at >= end:
            raise Undecodable("the block ends within a field")
        number = block[at] & mask
        at += 1
        if number == mask:
            shift = 0
            while True:
                if at >= end or shift >= 7 * INTEGER_OCTETS:
                    raise Undecodable("a number has no end")
                octet = block[at]
                at += 1
                number += (octet & 0x7F) << shift
                if octet < 0x80:
                    break
                shift += 7
        self._at = at
        return number


def unhuffed(coded: bytes) -> bytes:
    """What was Huffman-coded. Raises Undecodable."""
    following, completes, symbols = NEXT, COMPLETES, SYMBOLS
    text: list[int] = []
    state = 0
    for octet in coded:
        at = state << 4 | octet >> 4
        complete = completes[at]
        if complete:
            text.append(symbols[at])
        at = following[at] << 4 | octet & 0x0F
        if completes[at]:
            text.append(symbols[at])
            complete |= completes[at]
        if complete & WRONG:
            raise Undecodable("a text holds the code that ends all")
        state = following[at]
    if not ENDS[state]:
        raise Undecodable("a text ends within a code")
    return bytes(text)
