"""From an engine's metrics page to a Reading.

The llm-d router takes the first series of a family. Here a page may speak for several engines (data parallelism,
several models): waiting, running and block counts are summed over the series, KV usage and block size are the largest.
A custom metric has no such meaning, so there the newest series counts, else the first, as in the llm-d router.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from epp.feeds.engines import EngineMap, Source
from epp.feeds.promtext import Places, Sample, Spec, samples
from epp.types import Reading

FOLDS: dict[str, Callable[[Sequence[float]], float]] = {
    "waiting": sum,
    "running": sum,
    "kv_usage": max,
    "block_tokens": max,
    "num_blocks": sum,
}
"""How the series of a field become one number."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a page told, and which of the numbers asked for it did not (LoRAs apart: most engines have none)."""

    reading: Reading
    missing: tuple[str, ...]

    @property
    def empty(self) -> bool:
        return self.reading == Reading()


def read(page: bytes, engine: EngineMap, places: Places | None = None) -> Look:
    """The numbers `engine` looks for, as far as `page` has them. Never raises: an unreadable page is an empty look.

    `places` is what was learned from the endpoint's last page; it is changed.
    """
    families = _Page(page, places)
    reading = Reading()
    missing = []
    for name, fold in FOLDS.items():
        sources: tuple[Source, ...] = getattr(engine, name)
        numbers = next(filter(None, map(families.numbers, sources)), [math.nan])
        number = fold(numbers)
        if math.isfinite(number):
            setattr(reading, name, number)
        elif sources:
            missing.append(name)
    if reading.kv_usage is not None:
        reading.kv_usage = min(1.0, reading.kv_usage)
    if engine.loras is not None:
        _read_loras(reading, families, engine.loras)
    reading.attributes = {
        key: newest.value
        for key, spec in engine.attributes
        if (newest := families.newest(spec)) is not None and math.isfinite(newest.value)
    }
    missing += [key for key, _ in engine.attributes if key not in reading.attributes]
    return Look(reading, tuple(missing))


class _Page:
    """A page with what was already looked up on it: two numbers often share a family."""

    def __init__(self, page: bytes, places: Places | None) -> None:
        self._page = page
        self._places = places
        self._found: dict[Spec, list[Sample]] = {}

    def samples(self, spec: Spec) -> list[Sample]:
        if spec not in self._found:
            self._found[spec] = samples(self._page, spec, self._places)
        return self._found[spec]

    def newest(self, spec: Spec) -> Sample | None:
        """The series with the greatest timestamp, else the first."""
        return max(self.samples(spec), key=lambda sample: sample.timestamp, default=None)

    def numbers(self, source: Source) -> list[float]:
        """One number a series, those that are none left out; nothing that is counted here is below 0."""
        found = self.samples(source.spec)
        if source.label:
            values = [_number(sample.label(source.label)) for sample in found]
        else:
            values = [sample.value for sample in found]
        return [max(0.0, value) for value in values if math.isfinite(value)]


def _number(text: str) -> float:
    """NaN for anything else, such as vLLM's `None` for a number of blocks not yet known."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_loras(reading: Reading, page: _Page, spec: Spec) -> None:
    """Of the series of a LoRA info family the last written one counts: its value is the time of writing."""
    told = [sample for sample in page.samples(spec) if math.isfinite(sample.value)]
    if not told:
        return
    last = max(told, key=lambda sample: sample.value)
    reading.running_loras = _names(last.label("running_lora_adapters"))
    reading.waiting_loras = _names(last.label("waiting_lora_adapters"))
    most = _number(last.label("max_lora"))
    reading.max_loras = max(0.0, most) if math.isfinite(most) else None


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))
