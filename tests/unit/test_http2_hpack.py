"""Header blocks: what the package hpack makes and reads, ours must read the same; what is broken, neither."""

from __future__ import annotations

import hpack
import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.table import HeaderTable
from hypothesis import given
from hypothesis import strategies as st

from epp.extproc.http2_codes import Oversized, Undecodable
from epp.extproc.http2_hpack import KEPT_LITERALS, Decoder, unhuffed
from epp.extproc.http2_hpack_tables import STATIC

LIST_BYTES = 1_000
Fields = list[tuple[bytes, bytes]]

texts = st.one_of(st.binary(max_size=40), st.sampled_from([b":path", b"te", b"content-type", b"x" * 200, b"y" * 300]))
fields = st.tuples(st.one_of(texts, st.sampled_from([name for name, _ in STATIC])), texts)
kinds = st.sampled_from([hpack.HeaderTuple, hpack.NeverIndexedHeaderTuple])
blocks = st.lists(st.tuples(fields, kinds), max_size=8)


def told(decoder: Decoder, block: bytes) -> Fields | str:
    """The fields, or which kind of error there was."""
    try:
        return [(field.name, field.value) for field in decoder.decode(block)]
    except Oversized:
        return "oversized"
    except Undecodable:
        return "undecodable"


def told_by_hpack(decoder: hpack.Decoder, block: bytes) -> Fields | str:
    try:
        return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except hpack.OversizedHeaderListError:
        return "oversized"
    except (hpack.HPACKError, IndexError, ValueError):
        return "undecodable"


def literal(name: int | bytes, value: bytes, *, pattern: int = 0, huffman: bool = False) -> bytes:
    """A literal by hand; `name` may be a small index, `pattern` are the bits before it."""
    if isinstance(name, int):
        return bytes([pattern | name]) + text(value, huffman=huffman)
    return bytes([pattern]) + text(name, huffman=huffman) + text(value, huffman=huffman)


def text(value: bytes, *, huffman: bool) -> bytes:
    if huffman:
        value = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(value)
    assert len(value) < 127
    return bytes([len(value) | 0x80 * huffman]) + value


def test_the_static_table_is_the_one_of_the_rfc() -> None:
    assert tuple(HeaderTable.STATIC_TABLE) == STATIC


@given(st.lists(st.tuples(blocks, st.booleans(), st.sampled_from([None, 0, 100, 4_096])), max_size=8))
def test_what_hpack_writes_is_read_as_hpack_reads_it(sent: list[tuple[list, bool, int | None]]) -> None:  # type: ignore[type-arg]
    encoder, ours, theirs = hpack.Encoder(), Decoder(LIST_BYTES), hpack.Decoder(LIST_BYTES)
    for block, huffman, table in sent:
        if table is not None:
            encoder.header_table_size = table
        wire = encoder.encode([kind(*field) for field, kind in block], huffman=huffman)
        expected = told_by_hpack(theirs, wire)
        assert told(ours, wire) == expected
        if isinstance(expected, str):
            return


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_garbage_is_read_or_refused_as_by_hpack(wires: list[bytes]) -> None:
    ours, theirs = Decoder(LIST_BYTES), hpack.Decoder(LIST_BYTES)
    for wire in wires:
        expected = told_by_hpack(theirs, wire)
        assert told(ours, wire) == expected
        if isinstance(expected, str):
            return


@given(blocks.filter(bool), st.booleans(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3))
def test_a_spoilt_block_is_read_or_refused_as_by_hpack(
    block: list,  # type: ignore[type-arg]
    huffman: bool,
    spoilt: list[tuple[int, int]],
) -> None:
    encoder, ours, theirs = hpack.Encoder(), Decoder(LIST_BYTES), hpack.Decoder(LIST_BYTES)
    wire = bytearray(encoder.encode([kind(*field) for field, kind in block], huffman=huffman))
    for at, octet in spoilt:
        wire[at % len(wire)] = octet
    assert told(ours, bytes(wire)) == told_by_hpack(theirs, bytes(wire))
    cut = bytes(wire[: len(wire) // 2])
    assert told(Decoder(LIST_BYTES), cut) == told_by_hpack(hpack.Decoder(LIST_BYTES), cut)


@given(st.binary(max_size=100))
def test_every_text_survives_the_huffman_code(value: bytes) -> None:
    assert unhuffed(HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode(value)) == value


@pytest.mark.parametrize(
    "coded",
    [b"\xff", b"\xff\xff\xff\xff", b"\x1f\xff", b"\x00", b"\xff\xff\xff\xfc"],
    ids=["eight bits of padding", "the code that ends all", "too much padding", "padding of zeros", "cut in a code"],
)
def test_a_text_that_ends_wrong_is_refused(coded: bytes) -> None:
    with pytest.raises(Undecodable):
        unhuffed(coded)


def test_a_name_from_the_table_is_looked_up_anew_each_time() -> None:
    decoder, by_name = Decoder(LIST_BYTES), literal(0x0F, b"v").replace(b"\x0f", b"\x0f\x2f", 1)
    for name in (b"one", b"two"):
        decoder.decode(literal(name, b"x", pattern=0x40))
        assert told(decoder, by_name) == [(name, b"v")]


def test_a_literal_outside_the_table_changes_nothing_and_means_the_same_again() -> None:
    decoder = Decoder(LIST_BYTES)
    wires = [literal(4, b"/%d" % n, huffman=True) for n in range(2 * KEPT_LITERALS)] * 2
    assert [told(decoder, wire) for wire in wires] == [[(b":path", b"/%d" % n)] for n in range(2 * KEPT_LITERALS)] * 2
    assert decoder.changes == 0


@pytest.mark.parametrize(
    "wire",
    [
        b"\x80", b"\xbe", b"\x82\x20", b"\x3f\xe2\x1f", b"\x7f", b"\x0f\x30\x01v", b"\xff" + b"\x80" * 6, b"\x04\x05/",
    ],
    ids=["no index", "nothing there", "resized late", "table too large", "cut", "name not there", "no end", "cut text"],
)  # fmt: skip
def test_what_is_broken_is_refused(wire: bytes) -> None:
    assert told(Decoder(LIST_BYTES), wire) == told_by_hpack(hpack.Decoder(LIST_BYTES), wire) == "undecodable"


def test_a_list_may_be_as_long_as_is_taken_and_no_longer() -> None:
    exact = literal(b"x", b"y" * (100 - 33), pattern=0x40)
    assert told(Decoder(100), exact) == [(b"x", b"y" * 67)]
    assert told(Decoder(100), exact + b"\xbe") == "oversized"
