import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from sim.clock import Clock
from sim.engine import Engine
from sim.latencies import Histogram, Latencies
from sim.live import LiveEngine, Ticket
from sim.types import EngineSettings, Job, Speed

SETTINGS = EngineSettings(speed=Speed(inter_token_s=0.01, prefill_overhead_s=0.005, prefill_s_per_token=0.0))


class VirtualLoop:
    """The part of an event loop that LiveEngine uses, on a virtual clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.clock = Clock()
        self.create_future = loop.create_future

    def time(self) -> float:
        return self.clock.now

    def call_at(self, when: float, action: Callable[[], None]) -> SimpleNamespace:
        pending = [action]
        self.clock.at(when, lambda: pending and pending.pop()())
        return SimpleNamespace(cancel=pending.clear)


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    real = asyncio.new_event_loop()
    yield VirtualLoop(real)
    real.close()


def live(loop: VirtualLoop) -> LiveEngine:
    return LiveEngine(Engine(SETTINGS), Latencies(1024), loop)


def watched(engine: LiveEngine, loop: VirtualLoop, job: Job) -> tuple[Ticket, list[tuple[float, int]]]:
    """Submit a job and note (time, tokens so far) whenever it is told of."""
    told: list[tuple[float, int]] = []
    ticket = engine.submit(job)
    engine.watch(ticket, lambda tokens: told.append((round(loop.clock.now, 2), tokens)))
    return ticket, told


def test_a_watched_job_is_told_each_token_in_time(loop: VirtualLoop) -> None:
    ticket, told = watched(live(loop), loop, Job(10, 4))
    loop.clock.run()
    assert told == [(0.0, 0), (0.01, 1), (0.02, 2), (0.03, 3), (0.04, 4)]
    assert ticket.begun.done()
    assert ticket.finished.done()


def test_without_a_watcher_the_timer_waits_for_the_next_event(loop: VirtualLoop) -> None:
    engine = live(loop)
    engine.submit(Job(10, 400))
    loop.clock.run(until=0.1)
    assert loop.clock.now == 0.1
    [(when, _, _)] = loop.clock._actions
    assert when == pytest.approx(0.005 + 399 * 0.01, abs=0.001)


def test_an_end_that_another_submission_stumbles_upon_is_told_at_once(loop: VirtualLoop) -> None:
    engine = live(loop)
    first, _ = watched(engine, loop, Job(10, 1))
    loop.clock.now = 0.02  # the timer is late
    engine.submit(Job(10, 1))
    assert first.finished.done()


def test_an_end_that_a_drop_stumbles_upon_is_told_at_once(loop: VirtualLoop) -> None:
    engine = live(loop)
    first, _ = watched(engine, loop, Job(10, 1))
    other, _ = watched(engine, loop, Job(10, 9))
    loop.clock.now = 0.02
    engine.drop(other)
    assert first.finished.done()


def test_a_dropped_job_leaves_no_timer_behind(loop: VirtualLoop) -> None:
    engine = live(loop)
    engine.drop(watched(engine, loop, Job(10, 400))[0])
    loop.clock.run()
    assert loop.clock.now < 1
    assert engine.load().running == 0


def test_dropping_a_finished_job_does_nothing(loop: VirtualLoop) -> None:
    engine = live(loop)
    ticket, _ = watched(engine, loop, Job(10, 2))
    loop.clock.run()
    engine.drop(ticket)
    assert engine.engine.counters.by_reason() == {"stop": 0, "length": 1, "abort": 0}


def test_latencies_of_a_finished_job_are_counted(loop: VirtualLoop) -> None:
    engine = live(loop)
    engine.submit(Job(10, 11))
    loop.clock.run()
    totals = {name: histogram.total for name, histogram in engine.latencies.histograms.items()}
    assert totals == pytest.approx(
        {
            "request_prompt_tokens": 10,
            "request_generation_tokens": 11,
            "time_to_first_token_seconds": 0.005,
            "inter_token_latency_seconds": 0.1,
            "request_time_per_output_token_seconds": 0.01,
            "e2e_request_latency_seconds": 0.105,
            "request_queue_time_seconds": 0,
            "request_inference_time_seconds": 0.105,
            "request_prefill_time_seconds": 0.005,
            "request_decode_time_seconds": 0.1,
        }
    )
    assert engine.latencies.histograms["inter_token_latency_seconds"].cumulative()[-1] == 10


def test_a_histogram_counts_a_bound_into_its_own_bucket() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert histogram.cumulative() == [2, 4, 5]
