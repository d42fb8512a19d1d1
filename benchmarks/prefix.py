"""The prefix index beside one of dicts: bytes an entry, µs a call, stalls, and what its eviction gets wrong.

`python -m benchmarks.prefix` prints a table and writes results/prefix.json. The reference is what one would write
first: a dict of sets, and per endpoint an OrderedDict that evicts exactly the least recently used block.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.machine import write
from epp.pool.prefix import DEFAULT_CAPACITY, PrefixIndex, chain_hashes
from epp.types import Column

BLOCK_BYTES = 256
PAGE = os.sysconf("SC_PAGE_SIZE")
SHARED = {"one of 100": 1, "10 of 100": 10, "all 100": 100}
"""How many endpoints hold each prompt."""

Index = Any  # PrefixIndex or DictIndex: the same calls
Prompt = array  # of unsigned 64-bit hashes


class DictIndex:
    """The reference. Slots are row numbers."""

    def __init__(self) -> None:
        self.holders: dict[int, set[str]] = {}
        self.held: dict[str, OrderedDict[int, None]] = {}
        self.capacity: dict[str, int] = {}

    def slots(self, keys: Sequence[str]) -> dict[str, int]:
        return {key: row for row, key in enumerate(keys)}

    def set_capacity(self, key: str, blocks: int) -> None:
        self.capacity[key] = blocks
        self.held[key] = OrderedDict()

    def match(self, hashes: Sequence[int], rows: dict[str, int]) -> Column:
        matched = np.zeros(len(rows))
        still: set[str] = set()
        depth = 0
        for depth, block in enumerate(hashes):
            holders = self.holders.get(block, set())
            for key in still - holders if depth else ():
                matched[rows[key]] = depth
            still = still & holders if depth else set(holders)
            if not still:
                return matched
        for key in still:
            matched[rows[key]] = depth + 1
        return matched

    def add(self, hashes: Sequence[int], key: str) -> None:
        held, capacity = self.held[key], self.capacity[key]
        for block in reversed(hashes[:capacity]):
            if block in held:
                held.move_to_end(block)
                continue
            held[block] = None
            self.holders.setdefault(block, set()).add(key)
            if len(held) > capacity:
                self.forget(held.popitem(last=False)[0], key)

    def forget(self, block: int, key: str) -> None:
        holders = self.holders[block]
        holders.discard(key)
        if not holders:
            del self.holders[block]


KINDS: dict[str, Callable[[], Index]] = {"arrays": PrefixIndex, "dicts": DictIndex}


def names(count: int) -> list[str]:
    return [f"default/endpoint-{number}" for number in range(count)]


def prompts(rng: np.random.Generator, count: int, blocks: int) -> list[Prompt]:
    numbers = rng.integers(0, 2**64, (count, blocks), dtype=np.uint64)
    return [array("Q", row.tobytes()) for row in numbers]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def index_of(kind: str, keys: list[str], capacity: int) -> Index:
    index = KINDS[kind]()
    for key in keys:
        index.set_capacity(key, capacity)
    return index


# Memory and stalls, each in a process of its own.


def filled(kind: str, share: int, capacity: int, blocks: int) -> dict[str, float]:
    """Fill 100 endpoints one and a half times over, every prompt going to `share` of them; µs of CPU an add."""
    rng = np.random.default_rng(1)
    keys = names(100)
    rounds = 100 * capacity * 3 // 2 // (blocks * share)
    took = array("d", bytes(8 * rounds * share))
    index_of(kind, keys, 100).add(prompts(rng, 1, 64)[0], keys[0])
    gc.collect()
    before = resident()
    index = index_of(kind, keys, capacity)
    for number in range(rounds):
        (prompt,) = prompts(rng, 1, blocks)
        for turn, key in enumerate(rng.choice(100, share, replace=False).tolist() if share > 1 else (number % 100,)):
            begun = time.thread_time()
            index.add(prompt, keys[key])
            took[number * share + turn] = time.thread_time() - begun
    gc.collect()
    held = resident() - before
    entries = index.totals.entries if kind == "arrays" else sum(map(len, index.held.values()))
    result = {"entries": entries, "rss_bytes_per_entry": held / entries}
    if kind == "arrays":
        result["counted_bytes_per_entry"] = index.totals.bytes / entries
    mean, p99, p999, worst = (1e6 * float(x) for x in (np.mean(took), *np.quantile(took, (0.99, 0.999, 1))))
    return result | {"add_us_mean": mean, "add_us_p99": p99, "add_us_p999": p999, "add_us_worst": worst}


def in_child(*arguments: str | int) -> Any:  # whatever the child measured
    command = [sys.executable, "-m", "benchmarks.prefix", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def memory() -> dict[str, Any]:
    """Prompts of 8 blocks on 100 endpoints of the default capacity (dicts: a third); and, harder, of one block."""
    result: dict[str, Any] = {}
    for name, share in SHARED.items():
        result[name] = {
            "prompt_blocks": 8,
            "arrays": in_child("fill", "arrays", share, DEFAULT_CAPACITY, 8),
            "dicts": in_child("fill", "dicts", share, 10_700, 8),
        }
    for share in (3, 10):
        kinds = {kind: in_child("fill", kind, share, 10_700, 1) for kind in KINDS}
        result[f"{share} of 100, single blocks"] = {"prompt_blocks": 1} | kinds
    return result


# Speed.


def per_call(call: Callable[[Prompt], object], given: list[Prompt]) -> float:
    """µs a call, the best of five fifths."""
    parts = [given[start::5] for start in range(5)]
    best = float("inf")
    for part in parts:
        begun = time.perf_counter()
        for prompt in part:
            call(prompt)
        best = min(best, (time.perf_counter() - begun) / len(part))
    return best * 1e6


def calls(index: Index, keys: list[str], blocks: int) -> dict[str, float]:
    """µs of each call on a full index; `all` is a prompt that every endpoint holds."""
    rng = np.random.default_rng(blocks)
    slots = index.slots(keys)
    some = prompts(rng, max(60, 16_000 // blocks), blocks)
    everywhere = prompts(rng, 1, blocks)
    result = {"match_none": per_call(lambda prompt: index.match(prompt, slots), some)}
    result["add_new"] = per_call(lambda prompt: index.add(prompt, keys[prompt[0] % 10]), some)
    held = some[-4:] * 25
    for prompt in held:
        index.add(prompt, keys[prompt[0] % 10])
    result["match_one"] = per_call(lambda prompt: index.match(prompt, slots), held)
    result["add_again"] = per_call(lambda prompt: index.add(prompt, keys[prompt[0] % 10]), held)
    for key in keys:
        index.add(everywhere[0], key)
    result["match_all"] = per_call(lambda prompt: index.match(prompt, slots), everywhere * 100)
    return result


def speed(endpoints: int, capacity: int = 5000) -> dict[str, Any]:
    keys = names(endpoints)
    indexes = {kind: index_of(kind, keys, capacity) for kind in KINDS}
    for key in keys:
        for prompt in prompts(np.random.default_rng(len(key)), 40, capacity // 40):
            salted = array("Q", (np.asarray(prompt) ^ np.uint64(hash(key) % 2**64)).tobytes())
            for index in indexes.values():
                index.add(salted, key)
    result = {}
    for blocks in (8, 32, 128, 1563):
        measured = {kind: calls(index, keys, blocks) for kind, index in indexes.items()}
        ratio = {name: us / measured["dicts"][name] for name, us in measured["arrays"].items()}
        result[str(blocks)] = measured | {"ratio": ratio}
    return result


def hashing() -> dict[str, Any]:
    result = {}
    for size in (2_000, 32_000, 400_000):
        prompt = os.urandom(size)
        us = per_call(lambda _, prompt=prompt: chain_hashes(prompt, 1, BLOCK_BYTES, 2048), [array("Q")] * 500)
        result[str(size)] = {"us": us, "us_per_block": us / -(-size // BLOCK_BYTES)}
    return result


def leaving() -> float:
    """Milliseconds to forget one of 10 full endpoints."""
    rng, keys = np.random.default_rng(5), names(10)
    index = index_of("arrays", keys, DEFAULT_CAPACITY)
    for number, prompt in enumerate(prompts(rng, 20_000, 16)):
        index.add(prompt, keys[number % 10])
    begun = time.perf_counter()
    index.remove(keys[0])
    return (time.perf_counter() - begun) * 1e3


# What eviction in batches gets wrong, beside exact least recently used.


def conversations(rng: np.random.Generator, count: int) -> list[npt.NDArray[np.uint64]]:
    """Prompts of growing conversations: one of 300 system prompts (Zipf) and 4 more blocks each turn."""
    systems = rng.integers(0, 2**64, (300, 32), dtype=np.uint64)
    turns: list[npt.NDArray[np.uint64]] = []
    for _ in range(count):
        if turns and rng.random() < 0.6:
            begun = turns[-1 - int(rng.integers(0, min(len(turns), 400)))]
        else:
            begun = systems[min(int(rng.zipf(1.2)), 300) - 1]
        turns.append(np.concatenate((begun, rng.integers(0, 2**64, 4, dtype=np.uint64))))
    return turns


def error(requests: int = 20_000, capacity: int = 2_000) -> dict[str, float]:
    rng, keys = np.random.default_rng(7), names(4)
    ours, exact = (index_of(kind, keys, capacity) for kind in KINDS)
    slots, rows = ours.slots(keys), exact.slots(keys)
    found = wrong = missed = 0.0
    for turn in conversations(rng, requests):
        prompt = array("Q", turn.tobytes())
        truth, told = exact.match(prompt, rows), ours.match(prompt, slots)
        best = int(np.argmax(truth + rng.random(len(keys)) * 0.5))
        found += float(truth.max())
        missed += float(truth.max() - told.max())
        wrong += float((truth != told).any())
        for index in (ours, exact):
            index.add(prompt, keys[best])
    return {
        "requests": requests,
        "blocks_matched": found,
        "share_of_blocks_missed": missed / found,
        "share_of_requests_that_differ": wrong / requests,
    }


def main(arguments: list[str]) -> None:
    if arguments:
        _, kind, *numbers = arguments
        sys.stdout.write(json.dumps(filled(kind, *map(int, numbers))))
        return
    measured: dict[str, Any] = {
        "hashing": hashing(),
        "error": error(),
        "remove_31250_blocks_ms": leaving(),
        "speed_us": {str(endpoints): speed(endpoints) for endpoints in (10, 100, 1000)},
        "memory": memory(),
    }
    write("prefix", measured)
    sys.stdout.writelines(report(measured))


def report(measured: dict[str, Any]) -> Iterator[str]:
    for endpoints, sizes in measured["speed_us"].items():
        for blocks, both in sizes.items():
            told = "  ".join(f"{name} {us:7.1f} (x{both['ratio'][name]:.2f})" for name, us in both["arrays"].items())
            yield f"{endpoints:>5} endpoints {blocks:>5} blocks  {told}\n"
    for name, both in measured["memory"].items():
        ours, dicts = both["arrays"], both["dicts"]
        sizes = f"{ours['rss_bytes_per_entry']:.1f} B/entry (dicts {dicts['rss_bytes_per_entry']:.0f})"
        times = " ".join(f"{ours[f'add_us_{part}']:.0f}" for part in ("mean", "p99", "p999", "worst"))
        yield f"{name:26} {ours['entries']:>8} entries  {sizes}  add mean, p99, p99.9, worst {times} µs\n"
    yield json.dumps({name: measured[name] for name in ("hashing", "error", "remove_31250_blocks_ms")}, indent=1) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
