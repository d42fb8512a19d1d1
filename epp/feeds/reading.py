"""From an engine's metrics page to a Reading.

The llm-d router takes the first series of a family. Here a page may speak for several engines (data parallelism,
several models): waiting, running and block counts are summed over the series, KV usage and block size are the largest.
A custom metric has no such meaning, so there the newest series counts, else the first, as in the llm-d router.
"""

from __future__ import annotations

import math

from epp.feeds.engines import EngineMap, Source
from epp.feeds.promtext import Places, Sample, samples
from epp.feeds.spec import Spec
from epp.types import MOST_COUNTED, Reading


class Look:
    """What a page told, and which of the numbers asked for it did not (LoRAs apart: most engines have none)."""

    __slots__ = ("missing", "reading")

    def __init__(self, reading: Reading, missing: tuple[str, ...]) -> None:
        self.reading = reading
        self.missing = missing

    @property
    def empty(self) -> bool:
        return self.reading == Reading()


def read(page: bytes, engine: EngineMap, places: Places | None = None) -> Look:
    """The numbers `engine` looks for, as far as `page` has them. Never raises: an unreadable page is an empty look.

    `places` is what was learned from the endpoint's last page; it is changed.
    """
    families = _Page(page, places)
    reading = Reading()
    reading.waiting = families.sum("waiting", engine.waiting)
    reading.running = families.sum("running", engine.running)
    usage = families.largest("kv_usage", engine.kv_usage)
    reading.kv_usage = None if usage is None else min(1.0, usage)
    reading.block_tokens = families.largest("block_tokens", engine.block_tokens)
    reading.num_blocks = families.sum("num_blocks", engine.num_blocks)
    if engine.loras is not None:
        _read_loras(reading, families, engine.loras)
    if engine.attributes:
        reading.attributes = families.attributes(engine.attributes)
    return Look(reading, tuple(families.missing))


class _Page:
    """A page with what was already looked up on it: two numbers often share a family."""

    __slots__ = ("_found", "_page", "_places", "missing")

    def __init__(self, page: bytes, places: Places | None) -> None:
        self._page = page
        self._places = places
        self._found: dict[str, list[Sample]] = {}
        self.missing: list[str] = []
        """What was asked for and is not there, by name."""

    def samples(self, spec: Spec) -> list[Sample]:
        found = self._found.get(spec.text)
        if found is None:
            found = self._found[spec.text] = samples(self._page, spec, self._places)
        return found

    def sum(self, name: str, sources: tuple[Source, ...]) -> float | None:
        numbers = self._numbers(sources)
        return self._told(name, sources, sum(numbers) if numbers else math.nan)

    def largest(self, name: str, sources: tuple[Source, ...]) -> float | None:
        numbers = self._numbers(sources)
        return self._told(name, sources, max(numbers) if numbers else math.nan)

    def attributes(self, wanted: tuple[tuple[str, Spec], ...]) -> dict[str, float]:
        """Of each custom metric the series with the greatest timestamp, else the first."""
        told = {}
        for key, spec in wanted:
            newest = max(self.samples(spec), key=_timestamp, default=None)
            if newest is not None and math.isfinite(newest.value):
                told[key] = newest.value
            else:
                self.missing.append(key)
        return told

    def _told(self, name: str, sources: tuple[Source, ...], number: float) -> float | None:
        if math.isfinite(number):
            return number
        if sources:
            self.missing.append(name)
        return None

    def _numbers(self, sources: tuple[Source, ...]) -> list[float]:
        """One number a series of the first source that is there, those that are none left out, or over MOST_COUNTED;
        nothing that is counted here is below 0."""
        for source in sources:
            found = self.samples(source.spec)
            told = [_number(sample.label(source.label)) if source.label else sample.value for sample in found]
            numbers = [max(0.0, value) for value in told if abs(value) <= MOST_COUNTED]
            if numbers:
                return numbers
        return []


def _timestamp(sample: Sample) -> float:
    return sample.timestamp


def _value(sample: Sample) -> float:
    return sample.value


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
    last = max(told, key=_value)
    reading.running_loras = _names(last.label("running_lora_adapters"))
    reading.waiting_loras = _names(last.label("waiting_lora_adapters"))
    most = _number(last.label("max_lora"))
    reading.max_loras = max(0.0, most) if abs(most) <= MOST_COUNTED else None


def _names(text: str) -> frozenset[str]:
    return frozenset(name for part in text.split(",") if (name := part.strip()))
