"""What a coroutine costs, measured without it knowing."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Metered(Generic[T]):
    """Await it in place of the coroutine; `spent_s` is then the CPU time of its own steps, waiting left out.

    What the event loop and the sockets do in between is not seen.
    """

    def __init__(self, work: Coroutine[Any, Any, T], clock: Callable[[], float] = time.thread_time) -> None:
        self.spent_s = 0.0
        self._work = work
        self._clock = clock

    def __await__(self) -> Generator[Any, Any, T]:
        error: BaseException | None = None
        while True:
            began = self._clock()
            try:
                waited_for = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as done:
                result: T = done.value
                return result
            finally:
                self.spent_s += self._clock() - began
            try:
                yield waited_for
                error = None
            except BaseException as thrown:  # noqa: BLE001 - cancellation, time-out: the coroutine decides
                error = thrown
