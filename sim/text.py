"""Text as engines here see it: four bytes are a token, and the same prompt always gets the same answer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from xxhash import xxh3_64_intdigest

from sim.types import Job

TOKEN_BYTES = 4
_POOL_TOKENS = 4096
_SYLLABLES = ("ba", "de", "fi", "go", "hu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "wu", "za")
_ENDINGS = "lmnrst"


def token_count(text: bytes) -> int:
    return -(-len(text) // TOKEN_BYTES)


def chain(text: bytes, block_size: int, lora: str = "") -> list[int]:
    """One hash for each full block of `block_size` tokens; each depends on all text before it and on the adapter."""
    step = block_size * TOKEN_BYTES
    digest = xxh3_64_intdigest(lora.encode()) if lora else 0
    hashes = []
    for start in range(0, len(text) - step + 1, step):
        digest = xxh3_64_intdigest(text[start : start + step], digest)
        hashes.append(digest)
    return hashes


@cache
def _pool() -> bytes:
    """Words of three letters after a space, twice over so that any slice of up to _POOL_TOKENS is contiguous."""
    words = [" " + syllable + ending for syllable in _SYLLABLES for ending in _ENDINGS]
    picks = [words[xxh3_64_intdigest(i.to_bytes(4, "little")) % len(words)] for i in range(_POOL_TOKENS)]
    return "".join(picks).encode() * 2


def filler(seed: int, tokens: int) -> bytes:
    """ASCII words, exactly TOKEN_BYTES a token, no character that JSON escapes."""
    start = (seed % _POOL_TOKENS) * TOKEN_BYTES
    size = tokens * TOKEN_BYTES
    pool = _pool()
    pieces = [pool[start : start + min(size, _POOL_TOKENS * TOKEN_BYTES)]]
    if size > len(pieces[0]):
        pieces.append((pool * (size // len(pool) + 1))[: size - len(pieces[0])])
    return b"".join(pieces)


def answer(prompt: bytes, tokens: int) -> bytes:
    """What an engine says to a prompt: decided by the prompt alone, so that every face of the simulator agrees."""
    return filler(xxh3_64_intdigest(prompt), tokens)


def _padded(text: bytes) -> bytes:
    return text + b" " * (-len(text) % TOKEN_BYTES)


def turn(role: str, content: bytes) -> bytes:
    """A chat message in the prompt. Header and content begin on token boundaries."""
    return _padded(b"### %b: " % role.encode()) + _padded(content + b"\n")


def render(messages: Iterable[tuple[str, bytes]]) -> bytes:
    """A conversation as one prompt that asks for the assistant's turn.

    Appending the answer gives a prefix of the next turn's prompt, as chat templates do, so generated blocks are hit.
    """
    return b"".join([turn(role, content) for role, content in messages]) + _padded(b"### assistant: ")


def job(prompt: bytes, reply: bytes, block_size: int, lora: str = "") -> Job:
    """What an engine needs to know of a prompt and the reply it will give."""
    blocks = chain(_padded(prompt) + reply, block_size, lora)
    return Job(max(1, token_count(prompt)), max(1, token_count(reply)), blocks, lora)
