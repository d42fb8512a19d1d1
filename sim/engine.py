"""One engine: a FIFO queue, continuous batching, KV blocks with a prefix cache, preemption.

It has no clock of its own: each call says what time it is. Between arrivals, admissions and ends all steps are
equal, so time advances in jumps; asking in between changes nothing.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator

from sim.blocks import BlockPool
from sim.stretch import Pause, Stretch
from sim.types import Counters, EngineSettings, Event, Happening, Job, Load, Phase


class Engine:
    """Owns the jobs submitted to it until they are done."""

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.speed = settings.speed
        """May be replaced at any time; holds from the next stretch on."""
        self.counters = Counters()
        self.blocks = BlockPool(settings.num_blocks)
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, None] = {}  # oldest first
        self._prefilling: dict[Job, None] = {}
        self._ripening: list[tuple[float, int, Job]] = []  # prompts that take a fixed time; cancelled ones linger
        self._ends: list[tuple[int, int, Job]] = []  # by step; cancelled and preempted ones linger
        # How many decoding jobs take a block at the steps congruent to i: each takes one every block_size steps.
        self._crossings = [0] * settings.block_size
        self._decoding = 0
        self._step = 0
        self._pushed = 0
        self._stretch: Stretch | Pause | None = None
        self._chunks: list[tuple[Job, int]] = []
        self._events: list[Event] = []

    # What callers do

    def submit(self, now: float, job: Job) -> None:
        """Queue a job. ValueError if it could never fit into the KV cache."""
        room = self.settings.num_blocks * self.settings.block_size
        if job.prompt_tokens + job.output_tokens - 1 > room:
            raise ValueError(
                f"{job.prompt_tokens} prompt and {job.output_tokens} output tokens exceed the KV cache of {room} "
                "tokens; send less or raise num_blocks"
            )
        self._catch_up(now)
        job.arrived_at = now
        self._waiting.append(job)
        if self._stretch is None:
            self._plan(now)
        elif len(self._running) < self.settings.max_num_seqs:
            self._replan_after(now)

    def cancel(self, now: float, job: Job) -> None:
        """Drop a job whose client went away; nothing happens if it is done."""
        self._catch_up(now)
        if job.phase is Phase.DONE:
            return
        if job.phase is Phase.WAITING:
            self._waiting.remove(job)
        else:
            self._stop(job)
        job.phase = Phase.DONE
        job.finished_at = now
        self.counters.aborted += 1
        self._replan_after(now)

    def advance(self, now: float) -> list[Event]:
        """Bring everything up to `now`; what happened since the last call, in order."""
        self._catch_up(now)
        events, self._events = self._events, []
        return events

    @property
    def wake_at(self) -> float:
        """When the next event or admission may be due; infinite if idle."""
        return math.inf if self._stretch is None else self._stretch.end

    @property
    def next_token_at(self) -> float:
        """When the next step ends; infinite if idle."""
        return math.inf if self._stretch is None else self._stretch.next_boundary

    def produced(self, job: Job) -> int:
        """Tokens a job has so far."""
        return job.produced + (self._step - job.joined if job.phase is Phase.DECODE else 0)

    def load(self, now: float) -> Load:
        self._catch_up(now)
        return Load(
            waiting=len(self._waiting),
            running=len(self._running),
            kv_usage=self.blocks.used / self.blocks.size,
            running_loras=self._running_loras(),
            waiting_loras=frozenset([job.lora for job in self._waiting if job.lora]),
        )

    # Time passes

    def _catch_up(self, now: float) -> None:
        while (stretch := self._stretch) is not None:
            passed = stretch.passed(now)
            self._decode(passed - stretch.done)
            stretch.done = passed
            if passed < stretch.steps or stretch.end > now:
                return
            at = stretch.end
            self._end_stretch(at)
            self._plan(at)

    def _replan_after(self, now: float) -> None:
        """Let the running step end, then plan anew. A step with prompts in it is one step anyway."""
        if self._stretch is not None and not self._chunks:
            self._stretch.cut(now)

    def _decode(self, steps: int) -> None:
        self.blocks.grow(self._blocks_taken_in(steps))
        self._step += steps
        self.counters.generation_tokens += steps * self._decoding

    def _blocks_taken_in(self, steps: int) -> int:
        """Blocks that the decoding jobs take in the next `steps` steps."""
        size = len(self._crossings)
        cycles, rest = divmod(steps, size)
        first = self._step + 1
        return cycles * self._decoding + sum([self._crossings[(first + i) % size] for i in range(rest)])

    def _end_stretch(self, at: float) -> None:
        for job, tokens in self._chunks:
            job.uncomputed -= tokens
            if job.uncomputed == 0 and job.phase is Phase.PREFILL:
                self._begin_decode(at, job)
        self._chunks = []
        while self._ripening and self._ripening[0][0] <= at:
            ready_at, _, job = heapq.heappop(self._ripening)
            if job.phase is Phase.PREFILL and job.ready_at == ready_at:
                self._begin_decode(at, job)
        while self._ends and self._ends[0][0] <= self._step:
            step, _, job = heapq.heappop(self._ends)
            if job.ends_at_step == step and job.phase is Phase.DECODE:
                self._finish(at, job)

    def _begin_decode(self, at: float, job: Job) -> None:
        self._prefilling.pop(job, None)
        job.phase = Phase.DECODE
        job.produced += 1
        job.joined = self._step
        self.counters.generation_tokens += 1
        self._crossings[self._crossing(job)] += 1
        self._decoding += 1
        if job.first_token_at is None:
            job.first_token_at = at
            self.counters.prompt_tokens += job.prompt_tokens
            self._events.append(Event(at, Happening.FIRST_TOKEN, job))
        # One of a single token ends in the loop over _ends that follows, in this same step.
        job.ends_at_step = self._step + job.output_tokens - job.produced
        heapq.heappush(self._ends, (job.ends_at_step, self._next(), job))

    def _crossing(self, job: Job) -> int:
        """The residue of the steps at which a decoding job needs a new block."""
        return (job.joined + 1 - job.kv_tokens) % len(self._crossings)

    def _finish(self, at: float, job: Job) -> None:
        self._stop(job)
        job.phase = Phase.DONE
        job.finished_at = at
        self.counters.count_end(job)
        self._events.append(Event(at, Happening.FINISHED, job))

    def _stop(self, job: Job) -> None:
        """Take a running job out of the batch and give back its blocks."""
        size = self.settings.block_size
        prompt_blocks = job.kv_tokens // size
        kv_tokens = job.kv_tokens
        if job.phase is Phase.DECODE:
            kv_tokens += self._step - job.joined
            job.produced += self._step - job.joined
            self._decoding -= 1
            self._crossings[self._crossing(job)] -= 1
        del self._running[job]
        self._prefilling.pop(job, None)
        private = -(-kv_tokens // size) - len(job.held)
        self.blocks.release(job.held, private, job.chain[prompt_blocks : kv_tokens // size])
        job.held = []

    # What comes next

    def _plan(self, at: float) -> None:
        prefill_s = self._fill_step(at, admit=not self._make_room())
        settings = self.settings
        decode_s = self.speed.decode_step_s(self._decoding, settings.max_num_seqs) if self._decoding else 0.0
        if self._chunks:
            self._stretch = Stretch(at, decode_s + prefill_s, 1)
        elif self._decoding:
            self._stretch = Stretch(at, decode_s, self._jump(at, decode_s))
        elif self._ripening:
            self._stretch = Pause(self._ripening[0][0])
        else:
            self._stretch = None

    def _make_room(self) -> bool:
        """Preempt the newest until the others can take one step. True if any was."""
        preempted = False
        while self._blocks_taken_in(1) > self.blocks.available:
            job = next(reversed(self._running))
            self._stop(job)
            job.phase = Phase.WAITING
            job.preemptions += 1
            self._waiting.appendleft(job)
            self.counters.preemptions += 1
            preempted = True
        return preempted

    def _fill_step(self, at: float, admit: bool) -> float:
        """Choose the prompt tokens of the next step; the seconds they take."""
        budget = self.settings.max_num_batched_tokens - self._decoding
        seconds = 0.0
        for job in self._prompts(at, admit):
            fresh = job not in self._prefilling
            self._prefilling[job] = None
            tokens = min(job.uncomputed, budget)
            self._chunks.append((job, tokens))
            seconds += tokens * self.speed.prefill_s_per_token + fresh * self.speed.prefill_overhead_s
            budget -= tokens
            if budget == 0:
                break
        return seconds

    def _prompts(self, at: float, admit: bool) -> Iterator[Job]:
        """Those that compute their prompts, then, one by one as long as they are asked for, newly admitted ones."""
        yield from list(self._prefilling)
        while admit and (job := self._admit(at)) is not None:
            if self.speed.time_to_first_token_s > 0:
                load = self.speed.load_factor(len(self._running), self.settings.max_num_seqs)
                job.ready_at = at + self.speed.time_to_first_token_s * load
                heapq.heappush(self._ripening, (job.ready_at, self._next(), job))
            else:
                yield job

    def _admit(self, at: float) -> Job | None:
        """Move the next waiting job to the running ones if a slot, its adapter and its blocks can be had."""
        if len(self._running) >= self.settings.max_num_seqs or (job := self._first_waiting()) is None:
            return None
        size = self.settings.block_size
        tokens = job.prompt_tokens + job.produced
        total = -(-tokens // size)
        # The last token is always computed: the first output token comes from it.
        hits, idle = self.blocks.cached(job.chain, (tokens - 1) // size)
        if total - hits + idle > self.blocks.available - self._blocks_taken_in(1):
            return None
        self._waiting.remove(job)
        self._running[job] = None
        job.phase = Phase.PREFILL
        job.held = self.blocks.take(job.chain[: tokens // size], hits, total)
        job.kv_tokens = tokens
        job.uncomputed = tokens - hits * size
        self._count_admission(at, job, hits * size)
        return job

    def _count_admission(self, at: float, job: Job, cached_tokens: int) -> None:
        if job.admitted_at is None:
            job.admitted_at = at
            job.cached_tokens = cached_tokens
            self.counters.prefix_queries += job.prompt_tokens
            self.counters.prefix_hits += cached_tokens

    def _first_waiting(self) -> Job | None:
        """The first whose adapter is loaded or may be."""
        if not self._waiting or not self._waiting[0].lora:
            return self._waiting[0] if self._waiting else None
        loras = self._running_loras()
        full = len(loras) >= self.settings.max_loras
        return next((job for job in self._waiting if not job.lora or not full or job.lora in loras), None)

    def _running_loras(self) -> frozenset[str]:
        return frozenset([job.lora for job in self._running if job.lora])

    def _jump(self, at: float, step_s: float) -> int:
        """How many steps until the next one ends, ripens or finds no block."""
        while self._ends[0][2].ends_at_step != self._ends[0][0] or self._ends[0][2].phase is not Phase.DECODE:
            heapq.heappop(self._ends)
        steps = self._ends[0][0] - self._step
        if self._ripening:
            steps = min(steps, math.ceil((self._ripening[0][0] - at) / step_s))
        available = self.blocks.available
        if self._blocks_taken_in(steps) > available:
            steps = bisect_right(range(steps), available, key=self._blocks_taken_in) - 1
        return max(1, steps)

    def _next(self) -> int:
        self._pushed += 1
        return self._pushed
