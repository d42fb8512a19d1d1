"""Load: who asks what, when. Open loop: the next request comes whether or not the last one was answered.

So two pickers that are compared see the same requests at the same times, and a slow one is not spared any.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from sim.text import answer, filler, render


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request."""

    at: float
    """Seconds from the start."""
    prompt: bytes
    """What the engine computes: for a chat, its messages as the server renders them."""
    max_tokens: int
    session: str
    """"" = none."""
    messages: tuple[tuple[str, bytes], ...] = ()
    """(role, content); empty for a plain completion."""
    lora: str = ""


@dataclass(frozen=True, slots=True)
class Chat:
    """Multi-turn conversations that share system prompts."""

    system_prompts: int = 200
    zipf: float = 1.0
    """System prompt i is drawn with weight 1 / i ** zipf; 0 = all alike."""
    system_tokens: int = 512
    question_tokens: tuple[int, int] = (16, 128)
    answer_tokens: tuple[int, int] = (32, 256)
    """Lowest and highest, uniform between."""
    turns: tuple[int, int] = (1, 8)
    think_s: float = 5.0
    """Mean of an exponential: from the end of an answer to the next question."""
    token_s: float = 0.02
    """Time an answer's token is supposed to take; the next question waits for the answer that long."""
    loras: Sequence[str] = ()
    """Each conversation uses one of these; none = the model itself."""


def arrival_times(rng: Random, per_s: float, variation: float = 1.0, start: float = 0.0) -> Iterator[float]:
    """Endless times with `per_s` a second on average.

    `variation` is the coefficient of variation of the gaps: 0 = even, 1 = Poisson, more = bursts.
    """
    at = start
    while True:
        if variation == 0:
            at += 1.0 / per_s
        else:
            at += rng.gammavariate(variation**-2, variation**2 / per_s)
        yield at


def plain(rng: Random, times: Iterator[float], prompt_tokens: int, max_tokens: int) -> Iterator[Arrival]:
    """Completions that have nothing in common."""
    for at in times:
        yield Arrival(at, _text(rng, prompt_tokens), max_tokens, "")


def chat(rng: Random, session_starts: Iterator[float], shape: Chat) -> Iterator[Arrival]:
    """Conversations, merged in the order of time."""
    systems = _system_prompts(rng, shape)
    weights = list(accumulate([(i + 1) ** -shape.zipf for i in range(shape.system_prompts)]))
    pending: list[tuple[float, int, Arrival, Iterator[Arrival]]] = []
    for number, start in enumerate(session_starts):
        while pending and pending[0][0] <= start:
            yield from _next_turn(pending)
        system = rng.choices(systems, cum_weights=weights)[0]
        turns = _conversation(Random(rng.getrandbits(64)), start, f"s{number}", system, shape)
        first = next(turns)
        heapq.heappush(pending, (first.at, number, first, turns))
    while pending:
        yield from _next_turn(pending)


def _next_turn(pending: list[tuple[float, int, Arrival, Iterator[Arrival]]]) -> Iterator[Arrival]:
    _, number, arrival, turns = heapq.heappop(pending)
    yield arrival
    following = next(turns, None)
    if following is not None:
        heapq.heappush(pending, (following.at, number, following, turns))


def _conversation(rng: Random, at: float, session: str, system: bytes, shape: Chat) -> Iterator[Arrival]:
    lora = rng.choice(shape.loras) if shape.loras else ""
    messages: tuple[tuple[str, bytes], ...] = (("system", system),)
    for _ in range(rng.randint(*shape.turns)):
        messages = (*messages, ("user", _text(rng, rng.randint(*shape.question_tokens))))
        tokens = rng.randint(*shape.answer_tokens)
        prompt = render(messages)
        yield Arrival(at, prompt, tokens, session, messages, lora)
        messages = (*messages, ("assistant", answer(prompt, tokens)))
        at += tokens * shape.token_s + rng.expovariate(1.0 / shape.think_s)


def _system_prompts(rng: Random, shape: Chat) -> list[bytes]:
    return [_text(rng, shape.system_tokens) for _ in range(shape.system_prompts)]


def _text(rng: Random, tokens: int) -> bytes:
    """Text that begins like no other, so that nothing is shared by accident."""
    return (b"%015x " % rng.getrandbits(60) + filler(rng.getrandbits(32), tokens))[: tokens * 4]
