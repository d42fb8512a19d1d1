"""Decision time: the default configuration, 10 … 1,000 endpoints, prompts of 2 … 400 KB, unique and repeated.

`pick_us` is a whole request inside the picker, from its complete body to the answer's messages and back to a settled
ledger: parsing, hashing, index, votes, metrics, the ring of decisions. `decision_us` is the part between the snapshot
and the pick. Both are CPU time, so that a busy machine changes them little.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.machine import write
from epp.account import Account
from epp.config import load
from epp.exchange import Exchange
from epp.extproc.held import HeldBytes
from epp.extproc.stream import Stream
from epp.hooks import Hooks
from epp.obs.decisions import Decisions
from epp.obs.metrics import Metrics, new_registry
from epp.obs.observer import Observers
from epp.plugins import Catalogue
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.route import Router
from epp.rules import Forward, Habits, Rules
from epp.types import Change, Endpoint, Reading

ENDPOINTS = (10, 100, 1000)
PROMPT_BYTES = (2_048, 32_768, 400_000)
HEADERS = {
    ":path": ("/v1/chat/completions",),
    ":method": ("POST",),
    "content-type": ("application/json",),
    "user-agent": ("benchmark",),
    "x-request-id": ("d4e26f60-98cc-4c31-91b0-b5a6bd34c5e1",),
}
ANSWER = {":status": ("200",), "content-type": ("application/json",), "x-envoy-upstream-service-time": ("1",)}


def router(endpoints: int) -> Router:
    """The default configuration over a pool whose load is known and does not go stale."""
    built = load(None, catalogue=Catalogue.installed())
    pool, rng, now = Pool(), random.Random(1), time.monotonic()
    records = [Endpoint(f"e{row}", f"10.0.{row // 250}.{row % 250 + 1}", 8000) for row in range(endpoints)]
    pool.apply(Change(present=tuple(records)))
    for record in records:
        pool.sent(record.key)
        reading = Reading(
            waiting=rng.randint(0, 3), running=4, kv_usage=rng.random(), block_tokens=16, num_blocks=20_000
        )
        pool.update(record.key, reading, now, interval_s=1e6)
    observers = Observers(Metrics(new_registry()), Decisions(time.time), None, now=time.monotonic, verbosity=2)
    return Router(
        Rules(built.setup, built.parsers, Hooks(built.hooks), built.setup.columns),
        pool,
        Health(rng),
        observer=observers,
        rng=np.random.default_rng(1),
        now=time.monotonic,
        clock=time.perf_counter,
        habits=Habits(),
    )


def body(size: int, number: int) -> bytes:
    """A chat of about `size` bytes; different numbers share no beginning."""
    text = f"{number} " + "The quick brown fox jumps over the lazy dog. " * (size // 45)
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 64}).encode()


def one(made: Router, held: HeldBytes, request: bytes) -> float:
    """A request's whole life; returns the decision's own time in seconds."""
    exchange = Exchange(made)
    forward = exchange.pick(HEADERS, {}, request, False)
    assert isinstance(forward, Forward)
    Stream(held).forwarded(forward)
    books = exchange.books
    assert isinstance(books, Account)
    took = books.decision.took_s if books.decision else 0.0
    exchange.head(ANSWER, {}, True)
    exchange.settle("natural")
    return took


def measured(made: Router, requests: Sequence[bytes]) -> dict[str, float]:
    held = HeldBytes(body_limit=1 << 30, total_limit=1 << 30)
    for request in requests[: len(requests) // 5]:
        one(made, held, request)
    picks, decisions = [], []
    for request in requests[len(requests) // 5 :]:
        began = time.thread_time()
        decisions.append(one(made, held, request))
        picks.append(time.thread_time() - began)
    return {
        "n": len(picks),
        "pick_us": round(float(np.median(picks)) * 1e6, 1),
        "pick_mean_us": round(float(np.mean(picks)) * 1e6, 1),
        "decision_us": round(float(np.median(decisions)) * 1e6, 1),
    }


def main() -> None:
    rows = []
    for endpoints in ENDPOINTS:
        for size in PROMPT_BYTES:
            n = {2_048: 2_000, 32_768: 600, 400_000: 100}[size]
            for kind in ("unique", "repeated"):
                requests = [body(size, number if kind == "unique" else 0) for number in range(n)]
                rows.append({"endpoints": endpoints, "prompt_bytes": size, "prompts": kind})
                rows[-1].update(measured(router(endpoints), requests))
                print(" ".join(f"{key}={value}" for key, value in rows[-1].items()))
    print(write("decision", {"what": "CPU time of a pick, default configuration", "rows": rows}))


if __name__ == "__main__":
    main()
