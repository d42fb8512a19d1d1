"""Where the process spends its time and memory, for /debug/pprof: Python's own tools under the paths people know."""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats
import tracemalloc

from aiohttp import web

MOST_S = 60.0
DEFAULT_S = 10.0
LINES = 60
INDEX = """\
/debug/pprof/profile?seconds=10   what the event loop spends its time on (cProfile; it slows the picker meanwhile)
/debug/pprof/heap                 what holds memory (tracemalloc; only with PYTHONTRACEMALLOC=1 in the environment)
"""


class Profiling:
    """One profile at a time."""

    def __init__(self) -> None:
        self._busy = False

    async def index(self, request: web.Request) -> web.Response:
        return web.Response(text=INDEX)

    async def profile(self, request: web.Request) -> web.Response:
        """Functions of the event loop's thread by the time spent in and below them."""
        given = request.query.get("seconds", str(DEFAULT_S))
        try:
            seconds = float(given)
        except ValueError:
            seconds = -1.0
        if not 0 < seconds <= MOST_S:
            return web.Response(status=400, text=f"400: seconds={given}: it must be above 0 and at most {MOST_S:g}\n")
        if self._busy:
            return web.Response(status=409, text="409: another profile is being taken; try again when it is done\n")
        self._busy = True
        try:
            profiler = cProfile.Profile()
            await _watch(profiler, seconds)
        finally:
            self._busy = False
        out = io.StringIO()
        pstats.Stats(profiler, stream=out).sort_stats("cumulative").print_stats(LINES)
        return web.Response(text=out.getvalue())

    async def heap(self, request: web.Request) -> web.Response:
        """Lines of code by the memory they hold."""
        if not tracemalloc.is_tracing():
            text = "404: memory is not traced, which costs time: start the picker with PYTHONTRACEMALLOC=1\n"
            return web.Response(status=404, text=text)
        snapshot = await asyncio.to_thread(tracemalloc.take_snapshot)
        found = await asyncio.to_thread(snapshot.statistics, "lineno")
        return web.Response(text="\n".join(map(str, found[:LINES])) + "\n")


async def _watch(profiler: cProfile.Profile, seconds: float) -> None:
    profiler.enable()
    try:
        await asyncio.sleep(seconds)
    finally:
        profiler.disable()
