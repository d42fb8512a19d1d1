from itertools import islice, pairwise
from random import Random
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.clock import Clock
from sim.text import answer, chain, job, render, token_count
from sim.workload import Chat, arrival_times, chat, plain

SHAPE = Chat(system_prompts=20, system_tokens=64, turns=(2, 4))


def load(seed: int, count: int = 300, shape: Chat = SHAPE) -> list:
    return list(islice(chat(Random(seed), arrival_times(Random(seed + 1), 10.0), shape), count))


def test_actions_run_in_the_order_of_their_times_and_of_asking() -> None:
    clock, ran = Clock(), []
    for when, name in [(2.0, "c"), (1.0, "a"), (1.0, "b")]:
        clock.at(when, lambda name=name: ran.append((clock.now, name)))
    clock.run()
    assert ran == [(1.0, "a"), (1.0, "b"), (2.0, "c")]


def test_a_run_stops_at_its_limit_and_keeps_the_rest() -> None:
    clock, ran = Clock(), []
    for when in (1.0, 2.0, 3.0):
        clock.at(when, lambda: ran.append(clock.now))
    clock.run(until=2.5)
    assert (ran, clock.now, len(clock)) == ([1.0, 2.0], 2.5, 1)


@pytest.mark.parametrize("when", [4.9, float("nan")], ids=str)
def test_the_past_cannot_be_acted_in(when: float) -> None:
    with pytest.raises(ValueError, match=r"it is 5\.0 already"):
        Clock(5.0).at(when, list)


def test_the_same_seed_gives_the_same_load() -> None:
    assert load(3) == load(3) != load(4)


def test_requests_come_in_the_order_of_time() -> None:
    times = [arrival.at for arrival in load(3)]
    assert times == sorted(times)


def test_a_turns_prompt_and_answer_begin_the_next_turns_prompt() -> None:
    turns = [a for a in load(3) if a.session == "s0"]
    assert len(turns) >= 2
    for before, after in pairwise(turns):
        assert after.prompt.startswith(before.prompt + answer(before.prompt, before.max_tokens))


def test_the_prompt_is_what_the_server_makes_of_the_messages() -> None:
    assert all(render(a.messages) == a.prompt for a in load(3, 50))


def test_the_first_system_prompt_is_the_most_popular() -> None:
    firsts = [a.messages[0][1] for a in load(5, 2000) if len(a.messages) == 2]
    counts = sorted([firsts.count(text) for text in set(firsts)], reverse=True)
    assert len(counts) == 20
    assert counts[0] > 4 * counts[-1]


def test_each_conversation_keeps_its_adapter() -> None:
    arrivals = load(3, shape=Chat(system_prompts=2, system_tokens=8, loras=("a", "b")))
    by_session = {a.session: {b.lora for b in arrivals if b.session == a.session} for a in arrivals}
    assert {frozenset(loras) for loras in by_session.values()} == {frozenset("a"), frozenset("b")}


def test_plain_prompts_share_nothing() -> None:
    prompts = [a.prompt for a in islice(plain(Random(1), arrival_times(Random(2), 1.0), 32, 8), 100)]
    assert len({prompt[:16] for prompt in prompts}) == 100
    assert {token_count(prompt) for prompt in prompts} == {32}


@pytest.mark.parametrize("variation", [0.0, 1.0, 3.0], ids=str)
def test_gaps_have_the_rate_and_the_variation_asked_for(variation: float) -> None:
    times = list(islice(arrival_times(Random(1), 50.0, variation), 20_000))
    gaps = [b - a for a, b in pairwise(times)]
    assert mean(gaps) == pytest.approx(0.02, rel=0.1)
    assert pstdev(gaps) / mean(gaps) == pytest.approx(variation, rel=0.1, abs=1e-6)


@given(st.binary(max_size=400), st.binary(max_size=400), st.sampled_from([1, 4, 16]))
def test_texts_share_as_many_blocks_as_their_common_prefix_has(a: bytes, b: bytes, size: int) -> None:
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    pairs = list(zip(chain(a, size), chain(b, size), strict=False))
    assert [x == y for x, y in pairs] == [i < same // (4 * size) for i in range(len(pairs))]
    assert len(chain(a, size)) == len(a) // (4 * size)


def test_an_adapter_changes_every_block() -> None:
    text = b"x" * 64
    assert not set(chain(text, 4)) & set(chain(text, 4, "a"))


@given(st.binary(max_size=50), st.integers(0, 10_000))
def test_an_answer_has_as_many_tokens_as_asked_for(prompt: bytes, tokens: int) -> None:
    text = answer(prompt, tokens)
    assert token_count(text) == tokens
    assert len(text) == 4 * tokens
    assert text == answer(prompt, tokens)


def test_a_job_counts_a_broken_token_as_one() -> None:
    made = job(b"abcde", b"abcdefgh", 1)
    assert (made.prompt_tokens, made.output_tokens, len(made.chain)) == (2, 2, 4)
