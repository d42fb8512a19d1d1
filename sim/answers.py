"""What is said to a request: decided by its body alone."""

from __future__ import annotations

from random import Random

from xxhash import xxh3_64_intdigest

from sim.api import ApiError, Ask, Choice
from sim.bodies import json_text
from sim.settings import ServerSettings
from sim.text import TOKEN_BYTES, answer, job, token_count

_USUAL_TOKENS = (40, 20)
"""Mean and deviation of an answer's length where the request sets none."""


def choices(ask: Ask, settings: ServerSettings, lora: str) -> list[Choice]:
    """Every answer that was asked for, in the order of their indexes. ApiError(400) if one would not fit."""
    each = [i for i in range(len(ask.prompts)) for _ in range(ask.choices)]
    return [_choice(index, ask, prompt, settings, lora) for index, prompt in enumerate(each)]


def _choice(index: int, ask: Ask, which: int, settings: ServerSettings, lora: str) -> Choice:
    prompt = ask.prompts[which]
    room = _room(token_count(prompt), ask, settings)
    if settings.echo:
        pieces, cut = _echo(ask.said[which], ask.max_tokens or room)
    else:
        pieces, cut = _made_up(prompt, ask, room)
    text = "".join(pieces)
    work = job(prompt, text.encode(), settings.engine.block_size, lora)
    work.output_tokens, work.cut = len(pieces), cut
    # Made-up words hold nothing that JSON escapes.
    escaped = [json_text(piece)[1:-1].encode() if settings.echo else piece.encode() for piece in pieces]
    return Choice(index, work, text, escaped, "length" if cut else "stop")


def _room(prompt_tokens: int, ask: Ask, settings: ServerSettings) -> int:
    """Tokens that an answer may have at most."""
    room = settings.max_model_len - prompt_tokens
    if (ask.max_tokens or 1) > room:
        raise ApiError(
            400,
            f"This model's maximum context length is {settings.max_model_len} tokens; the prompt has {prompt_tokens} "
            f"and {ask.max_tokens or 1} are asked for. Shorten one of them.",
            "max_tokens",
        )
    return room


def _echo(said: str, most: int) -> tuple[list[str], bool]:
    """Pieces of four characters, at least one; whether they were cut off."""
    pieces = [said[i : i + TOKEN_BYTES] for i in range(0, len(said), TOKEN_BYTES)] or [""]
    return pieces[:most], len(pieces) >= most


def _made_up(prompt: bytes, ask: Ask, room: int) -> tuple[list[str], bool]:
    """As many tokens as are allowed or, without a limit, as the prompt happens to draw; whether it was a limit."""
    tokens = ask.max_tokens or room
    if ask.max_tokens is None and not ask.ignore_eos:
        drawn = Random(xxh3_64_intdigest(prompt)).gauss(*_USUAL_TOKENS)
        tokens = max(1, min(room, round(drawn)))
    words = answer(prompt, tokens).decode()
    pieces = [words[i : i + TOKEN_BYTES] for i in range(0, len(words), TOKEN_BYTES)]
    return pieces, tokens == (ask.max_tokens or room)
