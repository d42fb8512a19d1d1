from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest

from epp.pool.prefix import chain_hashes


def test_each_hash_is_seeded_with_the_one_before_it():
    first = xxh3_64_intdigest(b"abcd", 7)
    second = xxh3_64_intdigest(b"efgh", first)
    assert chain_hashes(b"abcdefghi", 7, 4, 100).tolist() == [first, second, xxh3_64_intdigest(b"i", second)]


@pytest.mark.parametrize(
    ("prompt", "most", "blocks"),
    [(b"", 9, 0), (b"a", 9, 1), (b"abcd", 9, 1), (b"abcde", 9, 2), (b"abcde" * 99, 9, 9), (b"abcd", 0, 0)],
)
def test_a_last_partial_block_counts_up_to_the_most_asked_for(prompt, most, blocks):
    assert len(chain_hashes(prompt, 0, 4, most)) == blocks


@given(st.binary(min_size=1, max_size=100), st.integers(0, 99), st.integers(1, 9), st.integers(0, 2**64 - 1))
def test_a_changed_byte_changes_its_block_and_all_after_it(prompt, at, block_bytes, seed):
    at %= len(prompt)
    changed = prompt[:at] + bytes([prompt[at] ^ 1]) + prompt[at + 1 :]
    before, after = (chain_hashes(each, seed, block_bytes, 100) for each in (prompt, changed))
    same = [one == other for one, other in zip(before, after, strict=True)]
    assert same == [number < at // block_bytes for number in range(len(before))]


def test_another_seed_gives_other_hashes():
    assert not set(chain_hashes(b"x" * 99, 1, 10, 99)) & set(chain_hashes(b"x" * 99, 2, 10, 99))


def test_a_view_hashes_as_its_bytes():
    assert chain_hashes(memoryview(b"abcdefghi"), 7, 4, 9) == chain_hashes(b"abcdefghi", 7, 4, 9)


def test_blocks_of_no_bytes_are_refused():
    with pytest.raises(ValueError, match="block_bytes is 0; a block needs at least 1 byte"):
        chain_hashes(b"abc", 0, 0, 9)
