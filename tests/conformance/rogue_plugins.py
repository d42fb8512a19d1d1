"""Plug-ins that keep the contract until a request's header x-rogue names a way to break it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from epp import Decision, Endpoints, Outcome, Refused, Request, Scores, column, signal

POINTS = """
[epp.scorers]
rogue-scorer = rogue_plugins:rogue_scorer
rogue-reader = rogue_plugins:rogue_reader
[epp.pickers]
rogue-picker = rogue_plugins:rogue_picker
[epp.profile_handlers]
rogue-handler = rogue_plugins:rogue_handler
[epp.hooks]
rogue-hook = rogue_plugins:RogueHook
[epp.signals]
rogue-signal = rogue_plugins:RogueSignal
"""


def raises(error: BaseException) -> Callable[..., Any]:
    def act(*_: object) -> Any:
        raise error

    return act


def lazy(*_: object) -> Iterator[int]:
    yield 0
    raise RuntimeError("late")


def spoils(request: Request, endpoints: Endpoints) -> None:
    endpoints.waiting[:] = 9.0


async def sleeps() -> None:
    await asyncio.sleep(1_000)


async def cancels() -> None:
    raise asyncio.CancelledError


# What breaks the contract, by the place and the word of the header.
SCORER: dict[str, Callable[..., Any]] = {
    "raise": raises(RuntimeError("boom")),
    "cancel": raises(asyncio.CancelledError()),
    "exit": raises(SystemExit(3)),
    "stop": raises(StopIteration()),
    "nan": lambda _, endpoints: np.full(len(endpoints), np.nan),
    "infinite": lambda _, endpoints: np.full(len(endpoints), np.inf),
    "dtype": lambda _, endpoints: np.zeros(len(endpoints), dtype=np.int64),
    "shape": lambda _, endpoints: np.zeros(len(endpoints) + 1),
    "list": lambda _, endpoints: [0.0] * len(endpoints),
    "spoil": spoils,
    "block": lambda *_: time.sleep(0.02),
}
PICKER: dict[str, Callable[..., Any]] = {
    "infinite": lambda *_: [float("inf")],
    "nan": lambda *_: [float("nan")],
    "lazy": lazy,
    "nobody": lambda *_: [],
    "cancel": raises(asyncio.CancelledError()),
}
HANDLER: dict[str, Callable[..., Any]] = {
    "number": lambda *_: 5,
    "lists": lambda *_: [[]],
    "text": lambda *_: "default",
    "raise": raises(RuntimeError("boom")),
}
SIGNAL: dict[str, Callable[..., Any]] = {
    "words": lambda _, endpoints: np.array(["a"] * len(endpoints)),
    "shape": lambda *_: np.zeros(99),
    "raise": raises(RuntimeError("boom")),
    "hang": lambda *_: sleeps(),
    "cancel": lambda *_: cancels(),
}
HOOK: dict[str, Callable[..., Any]] = {
    "raise": raises(RuntimeError("boom")),
    "exit": raises(SystemExit(3)),
    "text": lambda *_: "abc",
    "number": lambda *_: {"agent-identity": 5},
    "object": lambda *_: {"ns": {"x": object()}},
    "flat": lambda *_: {"ns": 5},
    "refuse": raises(Refused(403, "no")),
}


def act(place: str, ways: dict[str, Callable[..., Any]], request: Request) -> Callable[..., Any] | None:
    wanted, _, way = request.header("x-rogue").partition(" ")
    return ways[way] if wanted == place else None


def rogue_scorer(request: Request, endpoints: Endpoints) -> Scores:
    way = act("scorer", SCORER, request)
    return np.zeros(len(endpoints)) if way is None else way(request, endpoints)


def rogue_reader(rogue_column: Any) -> Scores:
    return np.clip(rogue_column, 0.0, 1.0)


def rogue_picker(request: Request, scores: Scores) -> Any:
    way = act("picker", PICKER, request)
    return np.argsort(-scores)[:1].tolist() if way is None else way(scores)


def rogue_handler(request: Request, profiles: Any, runs: Any) -> Any:
    way = act("handler", HANDLER, request)
    return ([] if runs else list(profiles)) if way is None else way(profiles)


@signal(provides={"rogue_column": column(0.0)}, timeout_ms=100.0)
class RogueSignal:
    async def __call__(self, request: Request, endpoints: Endpoints) -> Any:
        way = act("signal", SIGNAL, request)
        if way is None:
            return np.zeros(len(endpoints))
        found = way(request, endpoints)
        return await found if asyncio.iscoroutine(found) else found


class RogueHook:
    def arrived(self, request: Request) -> Any:
        return self._act("arrived", request)

    def picked(self, request: Request, decision: Decision) -> Any:
        return self._act("picked", request)

    def response_headers(self, request: Request, decision: Decision, headers: object, metadata: object) -> Any:
        return self._act("response_headers", request)

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> Any:
        return self._act("finished", request)

    @staticmethod
    def _act(place: str, request: Request) -> Any:
        way = act(place, HOOK, request)
        return None if way is None else way()
