"""The cost of a coroutine's own steps."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count
from typing import Any

import pytest

from epp.feeds.meter import Metered


def metered(work: Coroutine[Any, Any, str]) -> Metered[str]:
    """On a clock that moves one second at each look."""
    return Metered(work, clock=count().__next__)


async def three_steps() -> str:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return "done"


async def fails() -> str:
    await asyncio.sleep(0)
    raise KeyError("mine")


async def minds_its_timeout() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(3600)
    except TimeoutError:
        return "late"
    return "never"


def spent_and_result(work: Coroutine[Any, Any, str]) -> tuple[float, str]:
    async def main() -> tuple[float, str]:
        meter = metered(work)
        result = await meter
        return meter.spent_s, result

    return asyncio.run(main())


def test_every_step_is_counted_and_the_result_passed_on() -> None:
    assert spent_and_result(three_steps()) == (3, "done")


def test_time_outs_reach_the_coroutine() -> None:
    assert spent_and_result(minds_its_timeout()) == (2, "late")


def test_errors_come_out_and_are_counted() -> None:
    async def main() -> float:
        meter = metered(fails())
        with pytest.raises(KeyError):
            await meter
        return meter.spent_s

    assert asyncio.run(main()) == 2


def test_a_cancellation_reaches_the_coroutine() -> None:
    seen = []

    async def waits() -> str:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return ""

    async def main() -> None:
        task = asyncio.ensure_future(metered(waits()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen == ["cancelled"]
