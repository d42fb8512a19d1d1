import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.clock import Clock
from sim.engine import Engine
from sim.text import chain
from sim.types import EngineSettings, Event, Happening, Job, Phase, Speed
from sim.virtual import VirtualEngine

SPEED = Speed(inter_token_s=0.01, prefill_overhead_s=0.1, prefill_s_per_token=0.001)
ROOMY = EngineSettings(max_num_seqs=4, num_blocks=1000, block_size=4, max_num_batched_tokens=1000, speed=SPEED)


@dataclass(frozen=True)
class Ask:
    """One line of a script: `family` and `length` tokens of its text, so that equal families share prefixes."""

    gap_s: float
    family: int
    prompt_tokens: int
    output_tokens: int
    lora: str = ""


def job(ask: Ask, block_size: int = 4) -> Job:
    text = bytes([ask.family]) * 4 * (ask.prompt_tokens + ask.output_tokens)
    return Job(ask.prompt_tokens, ask.output_tokens, chain(text, block_size, ask.lora), ask.lora)


def drain(engine: Engine) -> list[Event]:
    events = []
    while math.isfinite(engine.wake_at):
        events += engine.advance(engine.wake_at)
    return events


def run(script: list[Ask], shape: EngineSettings, poll_steps: bool = False) -> tuple[Engine, list[Job], list[Event]]:
    """Submit the script; with `poll_steps`, look at the engine at every single step as the server does."""
    engine, now, jobs, events = Engine(shape), 0.0, [], []
    for ask in script:
        now += ask.gap_s
        while poll_steps and engine.next_token_at <= now:
            events += engine.advance(engine.next_token_at)
        jobs.append(job(ask, shape.block_size))
        engine.submit(now, jobs[-1])
    while poll_steps and math.isfinite(engine.next_token_at):
        events += engine.advance(engine.next_token_at)
    return engine, jobs, events + drain(engine)


SCRIPTS = st.lists(
    st.builds(
        Ask,
        gap_s=st.sampled_from([0.0, 0.001, 0.0137, 0.05, 0.5]),
        family=st.integers(0, 2),
        prompt_tokens=st.integers(1, 40),
        output_tokens=st.integers(1, 30),
        lora=st.sampled_from(["", "", "a", "b"]),
    ),
    max_size=14,
)
SHAPES = st.builds(
    EngineSettings,
    max_num_seqs=st.integers(1, 5),
    max_num_batched_tokens=st.sampled_from([8, 32, 2048]),
    num_blocks=st.sampled_from([18, 25, 60]),
    block_size=st.just(4),
    max_loras=st.integers(1, 2),
    speed=st.sampled_from(
        [SPEED, replace(SPEED, time_to_first_token_s=0.07, time_factor_under_load=3.0), Speed(0, 1, 0, 0)]
    ),
)


@given(SCRIPTS, SHAPES)
def test_every_job_begins_and_finishes_exactly_once(script: list[Ask], shape: EngineSettings) -> None:
    engine, jobs, events = run(script, shape)
    for what in Happening:
        assert sorted(id(e.job) for e in events if e.what is what) == sorted(map(id, jobs))
    assert all(engine.produced(j) == j.output_tokens and j.phase is Phase.DONE for j in jobs)


@given(SCRIPTS, SHAPES)
def test_events_come_in_the_order_of_time_and_of_life(script: list[Ask], shape: EngineSettings) -> None:
    _, jobs, events = run(script, shape)
    assert [e.at for e in events] == sorted(e.at for e in events)
    for j in jobs:
        assert j.arrived_at <= j.admitted_at <= j.first_token_at <= j.finished_at


@given(SCRIPTS, SHAPES)
def test_blocks_never_exceed_capacity_and_all_come_back(script: list[Ask], shape: EngineSettings) -> None:
    engine, now = Engine(shape), 0.0
    for ask in script:
        now += ask.gap_s
        engine.submit(now, job(ask))
        assert 0 <= engine.load(now).kv_usage <= 1
        assert engine.blocks.used + engine.blocks.idle <= shape.num_blocks
    while math.isfinite(engine.next_token_at):
        engine.advance(engine.next_token_at)
        assert engine.blocks.used + engine.blocks.idle <= shape.num_blocks
    assert engine.blocks.used == 0


@given(SCRIPTS, SHAPES)
def test_what_is_cached_is_less_than_the_prompt(script: list[Ask], shape: EngineSettings) -> None:
    engine, jobs, _ = run(script, shape)
    assert all(0 <= j.cached_tokens < j.prompt_tokens for j in jobs)
    assert engine.counters.prefix_queries == engine.counters.prompt_tokens == sum(j.prompt_tokens for j in jobs)
    assert engine.counters.prefix_hits == sum(j.cached_tokens for j in jobs)
    assert engine.counters.generation_tokens == sum(j.output_tokens for j in jobs)


@given(SCRIPTS, SHAPES)
def test_looking_at_every_step_changes_nothing(script: list[Ask], shape: EngineSettings) -> None:
    jumped, seen = run(script, shape), run(script, shape, poll_steps=True)
    assert jumped[0].counters == seen[0].counters
    assert [e[:2] for e in jumped[2]] == [e[:2] for e in seen[2]]
    assert [j.finished_at for j in jumped[1]] == [j.finished_at for j in seen[1]]


@given(SCRIPTS, SHAPES)
def test_the_virtual_clock_tells_every_event_at_its_time(script: list[Ask], shape: EngineSettings) -> None:
    clock, told = Clock(), []
    virtual = VirtualEngine(clock, Engine(shape), lambda event: told.append((clock.now, event.at, event.what)))
    at = 0.0
    for ask in script:
        at += ask.gap_s
        clock.at(at, lambda ask=ask: virtual.submit(job(ask)))
    clock.run()
    assert [told_at for told_at, _, _ in told] == [at for _, at, _ in told]
    assert [(at, what) for _, at, what in told] == [e[:2] for e in run(script, shape)[2]]


@given(SCRIPTS, SHAPES, st.integers(0, 13), st.floats(0, 3))
def test_a_cancelled_job_gives_everything_back(script: list[Ask], shape: EngineSettings, which: int, at: float) -> None:
    engine, now, jobs = Engine(shape), 0.0, []
    for ask in script:
        jobs.append(job(ask))
        engine.submit(now, jobs[-1])
    for victim in jobs[which:]:
        engine.cancel(at, victim)
    drain(engine)
    load = engine.load(1e9)
    assert (load.waiting, load.running, load.kv_usage) == (0, 0, 0)
    assert engine.counters.finished + engine.counters.aborted == len(jobs)
    assert all(j.phase is Phase.DONE for j in jobs)


def test_one_job_alone_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    _, [j], events = run([Ask(0, 1, 50, 11)], ROOMY)
    assert [e.what for e in events] == [Happening.FIRST_TOKEN, Happening.FINISHED]
    assert j.first_token_at == pytest.approx(0.1 + 50 * 0.001)
    assert j.finished_at == pytest.approx(0.15 + 10 * 0.01)


def test_cached_tokens_cost_no_time() -> None:
    _, [_, again], _ = run([Ask(0, 1, 50, 1), Ask(1, 1, 50, 1)], ROOMY)
    assert again.cached_tokens == 48
    assert again.first_token_at - again.arrived_at == pytest.approx(0.1 + 2 * 0.001)


def test_an_answer_is_found_again_in_the_next_turns_prompt() -> None:
    # The last of the 44 tokens was produced but never computed upon, so the block it fills is not there.
    _, [_, following], _ = run([Ask(0, 1, 20, 24), Ask(9, 1, 48, 1)], ROOMY)
    assert following.cached_tokens == 40


def test_another_adapter_shares_no_prefix() -> None:
    _, [_, other], _ = run([Ask(0, 1, 50, 1), Ask(1, 1, 50, 1, "a")], ROOMY)
    assert other.cached_tokens == 0


def test_a_prompt_slows_down_those_that_decode() -> None:
    _, [alone], _ = run([Ask(0, 1, 10, 21)], ROOMY)
    _, [disturbed, _], _ = run([Ask(0, 1, 10, 21), Ask(0.2, 2, 100, 1)], ROOMY)
    assert disturbed.finished_at - alone.finished_at == pytest.approx(0.1 + 100 * 0.001)


def test_a_long_prompt_is_computed_in_pieces_beside_decoding() -> None:
    shape = replace(ROOMY, max_num_batched_tokens=10)
    _, [first, long], _ = run([Ask(0, 1, 4, 100), Ask(0.2, 2, 90, 1)], shape)
    admitted = long.admitted_at
    assert long.first_token_at - admitted == pytest.approx(10 * 0.01 + 0.1 + 90 * 0.001)
    assert first.finished_at > long.finished_at


def test_a_fixed_time_to_first_token_does_not_depend_on_length_and_disturbs_nobody() -> None:
    shape = replace(ROOMY, speed=replace(SPEED, time_to_first_token_s=0.5))
    _, jobs, _ = run([Ask(0, 1, 10, 101), Ask(0.1, 2, 300, 1)], shape)
    assert [j.first_token_at for j in jobs] == pytest.approx([0.5, 0.6])
    assert jobs[0].finished_at == pytest.approx(1.5)


@pytest.mark.parametrize(("batch", "factor"), [(1, 1.0), (2, 2.0), (4, 4.0)], ids=str)
def test_steps_grow_with_the_batch(batch: int, factor: float) -> None:
    assert Speed(0.01, 4.0).decode_step_s(batch, 4) == pytest.approx(0.01 * factor)


def test_beyond_max_num_seqs_jobs_wait_in_order() -> None:
    engine, _, _ = run([], ROOMY)
    jobs = [job(Ask(0, i, 8, 5 + i)) for i in range(6)]
    for each in jobs:
        engine.submit(0.0, each)
    load = engine.load(0.2)
    assert (load.running, load.waiting) == (4, 2)
    drain(engine)
    starts = [j.admitted_at for j in jobs]
    assert starts == sorted(starts)


def test_admission_waits_for_blocks() -> None:
    _, [first, second], _ = run([Ask(0, 1, 60, 9), Ask(0, 2, 60, 9)], replace(ROOMY, num_blocks=20))
    assert second.admitted_at == first.finished_at


def test_the_newest_is_preempted_when_blocks_run_out_and_finishes_later() -> None:
    engine, [old, new], _ = run([Ask(0, 1, 20, 40), Ask(0, 2, 20, 40)], replace(ROOMY, num_blocks=20))
    assert (old.preemptions, new.preemptions) == (0, 1)
    assert engine.counters.preemptions == 1
    assert old.finished_at < new.finished_at


def test_a_preempted_job_goes_before_those_that_wait() -> None:
    script = [Ask(0, 1, 20, 40), Ask(0, 2, 20, 40), Ask(0, 3, 60, 21)]
    _, [_, preempted, waiting], _ = run(script, replace(ROOMY, num_blocks=20))
    assert preempted.preemptions == 1
    assert preempted.finished_at == waiting.admitted_at


def test_an_overtaken_wake_up_starts_no_second_chain_of_them() -> None:
    class CountingClock(Clock):
        asked = 0

        def at(self, when: float, action: Callable[[], None]) -> None:
            self.asked += 1
            super().at(when, action)

    clock = CountingClock()
    virtual = VirtualEngine(clock, Engine(replace(ROOMY, max_num_seqs=50)), lambda event: None)
    for number in range(50):
        clock.at(number * 0.5, lambda number=number: virtual.submit(job(Ask(0, number, 4, 200))))
    clock.run()
    # For each job: its submission, the step boundary it makes the engine stop at, its prompt's end, its own end.
    assert clock.asked <= 50 * 5


def test_an_adapter_waits_for_a_slot_and_others_pass_it() -> None:
    script = [Ask(0, 1, 8, 20, "a"), Ask(0, 2, 8, 20, "b"), Ask(0, 3, 8, 20)]
    _, [a, b, none], _ = run(script, replace(ROOMY, max_loras=1))
    assert b.admitted_at == a.finished_at
    assert none.admitted_at < a.finished_at


def test_the_load_names_adapters_that_run_and_wait() -> None:
    engine = Engine(replace(ROOMY, max_loras=1))
    engine.submit(0.0, job(Ask(0, 1, 8, 20, "a")))
    engine.submit(0.0, job(Ask(0, 2, 8, 20, "b")))
    load = engine.load(0.1)
    assert (load.running_loras, load.waiting_loras) == ({"a"}, {"b"})


def test_a_job_that_can_never_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="exceed the KV cache of 80 tokens"):
        Engine(replace(ROOMY, num_blocks=20)).submit(0.0, job(Ask(0, 1, 60, 22)))


def test_a_batch_without_room_for_prompts_is_refused() -> None:
    with pytest.raises(ValueError, match="max_num_batched_tokens 4 leaves no room"):
        replace(ROOMY, max_num_batched_tokens=4)


@settings(max_examples=20)
@given(st.integers(1, 2000))
def test_a_jump_over_many_steps_is_exact(tokens: int) -> None:
    engine, [j], _ = run([Ask(0, 1, 1, tokens)], ROOMY)
    assert j.finished_at == pytest.approx(0.101 + (tokens - 1) * 0.01)
    assert engine.counters.generation_tokens == tokens
