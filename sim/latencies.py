"""Histograms of finished requests, with vLLM's buckets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from sim.types import Event, Happening, Job

_STEPS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80)
_FIRST_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560),
)
_WHOLE_S = (
    *(0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60),
    *(120, 240, 480, 960, 1920, 7680),
)


class Histogram:
    """Counts by upper bound, the last without one."""

    __slots__ = ("_counts", "bounds", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.total = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def cumulative(self) -> list[int]:
        """One for each bound, then the count of all."""
        return list(accumulate(self._counts))


def _token_bounds(most: int) -> tuple[int, ...]:
    """1, 2, 5, 10, … up to `most`."""
    return tuple([m * 10**e for e in range(len(str(most))) for m in (1, 2, 5) if m * 10**e <= most])


class Latencies:
    """What requests took, by the name of vLLM's metric without its prefix."""

    def __init__(self, max_model_len: int) -> None:
        tokens = _token_bounds(max_model_len)
        self.histograms = {
            "request_prompt_tokens": Histogram(tokens),
            "request_generation_tokens": Histogram(tokens),
            "time_to_first_token_seconds": Histogram(_FIRST_S),
            "inter_token_latency_seconds": Histogram(_STEPS_S),
            "request_time_per_output_token_seconds": Histogram(_STEPS_S),
            "e2e_request_latency_seconds": Histogram(_WHOLE_S),
            "request_queue_time_seconds": Histogram(_WHOLE_S),
            "request_inference_time_seconds": Histogram(_WHOLE_S),
            "request_prefill_time_seconds": Histogram(_WHOLE_S),
            "request_decode_time_seconds": Histogram(_WHOLE_S),
        }

    def observe(self, event: Event) -> None:
        job = event.job
        if event.what is Happening.FIRST_TOKEN:
            self._note("time_to_first_token_seconds", event.at - _known(job.arrived_at))
        else:
            self._finished(job)

    def _finished(self, job: Job) -> None:
        arrived, admitted = _known(job.arrived_at), _known(job.admitted_at)
        first, finished = _known(job.first_token_at), _known(job.finished_at)
        self._note("request_prompt_tokens", job.prompt_tokens)
        self._note("request_generation_tokens", job.output_tokens)
        self._note("e2e_request_latency_seconds", finished - arrived)
        self._note("request_queue_time_seconds", admitted - arrived)
        self._note("request_inference_time_seconds", finished - admitted)
        self._note("request_prefill_time_seconds", first - admitted)
        self._note("request_decode_time_seconds", finished - first)
        steps = job.output_tokens - 1
        per_token = (finished - first) / max(steps, 1)
        self._note("request_time_per_output_token_seconds", per_token)
        # The mean stands for each of a request's steps: single ones are not kept.
        self.histograms["inter_token_latency_seconds"].observe(per_token, steps)

    def _note(self, name: str, value: float) -> None:
        self.histograms[name].observe(value)


def _known(at: float | None) -> float:
    assert at is not None, "asked for a time that an event of the job implies"
    return at
