"""Waits for a slow signal, and no longer than it may take, whatever the plug-in does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from epp.plan import Slow
from epp.plugins import PASSED_ON


async def settled(slow: Slow, limit_s: float, failed: Callable[[str, BaseException], None]) -> Any:
    """The signal's value; None if it is late or failed, which the decision notes and its readers survive.

    A signal that ignores its cancellation is left to itself. Raises Refused if the signal does.
    """
    task = asyncio.ensure_future(_guarded(slow.value))
    task.add_done_callback(_heard)
    try:
        await asyncio.wait({task}, timeout=limit_s)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        return None
    if task.cancelled():
        failed(slow.name, asyncio.CancelledError("it cancelled itself"))
        return None
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, PASSED_ON):
        raise error
    failed(slow.name, error)
    return None


async def _guarded(value: Awaitable[Any]) -> Any:
    try:
        return await value
    except SystemExit as error:
        # Out of a task it would end the event loop.
        raise RuntimeError(f"raised {error!r}") from None


def _heard(task: asyncio.Future[Any]) -> None:
    """Ask for the error of a task nobody waits for any more, or asyncio would log it."""
    if not task.cancelled():
        task.exception()
