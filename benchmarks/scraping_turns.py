"""How long the event loop is busy at a stretch while 1,000 endpoints are read: what a request may have to wait for.

The scraper runs here, on uvloop; something that is called in each turn of the loop notes the thread's CPU time, so
that what else runs on the machine hardly matters. A request that comes at any moment waits for the rest of the turn it
falls into: the figures are percentiles of that wait over all moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time

import numpy as np
import numpy.typing as npt
import uvloop

from benchmarks.machine import write
from benchmarks.scraping import Figures, addresses, engines
from epp.feeds.engines import engines as maps
from epp.feeds.pace import Pace
from epp.feeds.scrape import Scraper
from epp.obs.metrics import Metrics, new_registry
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.readings import PoolReadings
from epp.types import Change, Endpoint

ENDPOINTS, ROUNDS, SETTLE_S, SECONDS = 1000, 3, 4.0, 6.0
INTERVALS_S = {"600 scrapes/s": 1.6, "900 scrapes/s": 1.06}
PERCENTILES = {"p95": 0.05, "p99": 0.01, "p999": 0.001}


def scraper(port: int, interval_s: float) -> Scraper:
    """One that reads all endpoints at this interval, into a pool."""
    pool = Pool()
    board = Metrics(new_registry(), streams=False)
    readings = PoolReadings(pool, Health(random.Random(), largest_share=0.5), board, time.monotonic, lambda: None)
    made = Scraper(
        readings,
        maps(),
        clock=time.monotonic,
        chance=random.random,
        pace=Pace(interval_s, interval_s, budget_cores=2.0),
    )
    change = Change(tuple([Endpoint(f"e{n}", host, port) for n, host in enumerate(addresses(ENDPOINTS))]))
    pool.apply(change)
    made.apply(change)
    return made


async def turns(port: int, interval_s: float) -> tuple[npt.NDArray[np.float64], float, int]:
    """CPU time of each turn in µs, seconds that went by, scrapes."""
    loop, spent = asyncio.get_running_loop(), [0.0]
    one = scraper(port, interval_s)
    running = asyncio.create_task(one.run())
    await asyncio.sleep(SETTLE_S)
    began, before = time.monotonic(), one.scrapes

    def note() -> None:
        spent.append(time.thread_time())
        if time.monotonic() < began + SECONDS:
            loop.call_soon(note)

    note()
    await asyncio.sleep(SECONDS)
    seconds, scrapes = time.monotonic() - began, one.scrapes - before
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return np.diff(np.array(spent[1:])) * 1e6, seconds, scrapes


def wait(lengths: npt.NDArray[np.float64], seconds: float, share: float) -> float:
    """µs that one of the moments, this share of all, waits longer than."""
    least, most = 0.0, float(lengths.max())
    for _ in range(40):
        middle = (least + most) / 2
        longer = float(np.maximum(lengths - middle, 0).sum()) / (seconds * 1e6)
        least, most = (middle, most) if longer > share else (least, middle)
    return least


def case(port: int, interval_s: float) -> Figures:
    rounds = []
    for _ in range(ROUNDS):
        lengths, seconds, scrapes = uvloop.run(turns(port, interval_s))
        one: Figures = {"scrapes_per_s": round(scrapes / seconds, 1)}
        one |= {f"{name}_us": round(wait(lengths, seconds, share), 1) for name, share in PERCENTILES.items()}
        for least in (200, 500):
            share = float(lengths[lengths > least].sum()) / (seconds * 1e6)
            one[f"share_in_turns_over_{least}_us"] = round(share, 5)
        print(interval_s, one, flush=True)
        rounds.append(one)
    return {key: round(float(np.median([one[key] for one in rounds])), 5) for key in rounds[0]} | {"rounds": rounds}


def main() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with engines() as port:
        cases = {label: case(port, interval_s) for label, interval_s in INTERVALS_S.items()}
    what = (
        f"wait of a moment for the turn of the loop it falls into, CPU time, {SECONDS:g} s x {ROUNDS} rounds; medians"
    )
    print(write("scraping_turns", {"what": what, "endpoints": ENDPOINTS, "cases": cases}))


if __name__ == "__main__":
    main()
