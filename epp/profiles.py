"""Which profiles run for a request and what their results mean together; the whole decision as one generator.

`decide` yields only where a slow (async) signal is needed, so the common way never suspends.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from types import GeneratorType, NoneType
from typing import Any

import numpy as np
from msgspec import Struct

from epp.plugins import PASSED_ON, Plugin, shown
from epp.scheduler import Bound, Context, Profile, checked_column, checked_mask, keys_at, run
from epp.signals import ColumnOf, Provides
from epp.types import Decision, Endpoints, Flaw, Mask, Refused, Request, Rows, Run, Step

PLAIN = (tuple, np.ndarray, float, NoneType)
"""What signals mostly answer, none of it awaitable."""
Wait = Generator["Slow", Any, Decision]
"""Yields slow signals, is sent their values (or None if late or failed), returns the decision."""


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A signal ready to be computed: `outputs` are the keys its values go to, in the order it returns them."""

    bound: Bound
    provides: Provides
    outputs: tuple[str, ...]
    slots: tuple[tuple[str, object, bool], ...] = field(init=False, repr=False)
    """Each key with its default and whether it is a column."""

    def __post_init__(self) -> None:
        defaults = [d.default if isinstance(d, ColumnOf) else d for d in self.provides.values.values()]
        columns = [isinstance(d, ColumnOf) for d in self.provides.values.values()]
        object.__setattr__(self, "slots", tuple(zip(self.outputs, defaults, columns, strict=True)))


@dataclass(frozen=True, slots=True)
class Slow:
    """A signal that must be awaited, at most `timeout_ms`."""

    name: str
    value: Awaitable[Any]
    timeout_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """A configuration, built: everything that decides. Immutable; a reload makes another one."""

    plugins: Mapping[str, Plugin]
    profiles: Mapping[str, Profile]
    handler: Bound
    primary: Callable[[Request, Mapping[str, Run]], str] | None
    """The handler's own word on which run counts; None = the first that picked."""
    signals: tuple[Measured, ...] = ()
    """In an order in which each one's inputs come before it."""
    screeners: tuple[Bound, ...] = ()
    admitters: tuple[Bound, ...] = ()

    @property
    def columns(self) -> frozenset[str]:
        """Keys of signals that are columns over the table."""
        return frozenset(key for signal in self.signals for key, _, is_column in signal.slots if is_column)


class Given(Struct, frozen=True):
    """What a decision is made from besides the configuration."""

    request: Request
    endpoints: Endpoints
    now: float
    rng: np.random.Generator
    clock: Callable[[], float]
    subset: Mask | None = None
    """True where the gateway's hint allows the endpoint; None = no hint."""
    cooling: Mask | None = None
    """True where an endpoint is left out for failing; None = nowhere."""
    suspended: frozenset[str] = frozenset()


def decide(setup: Setup, given: Given, columns: frozenset[str]) -> Wait:
    """Decide where a request goes. Raises Refused, with the decision so far as its `decision`."""
    decision = Decision(given.request.id, given.request.model, given.now, len(given.endpoints))
    values: dict[str, Any] = {
        "request": given.request,
        "endpoints": given.endpoints,
        "now": given.now,
        "rng": given.rng,
    }
    context = Context(values, columns, None, decision, given.clock, given.suspended)
    began = given.clock()
    try:
        _narrow(context, given)
        yield from _measure(setup, context, given.endpoints)
        _screen(setup, context)
        _admit(setup, context)
        _run_profiles(setup, context)
    except Refused as refusal:
        refusal.decision = decision
        raise
    finally:
        decision.took_s = given.clock() - began
    return decision


def any_endpoint(given: Given) -> Decision:
    """Uniformly one of those the hint and their health allow: for requests without a body, which cost no prefill."""
    decision = Decision(given.request.id, given.request.model, given.now, len(given.endpoints), primary="any")
    context = Context({"endpoints": given.endpoints}, frozenset(), None, decision, given.clock)
    try:
        _narrow(context, given)
    except Refused as refusal:
        refusal.decision = decision
        raise
    rows = context.rows
    n = len(given.endpoints) if rows is None else len(rows)
    at = int(given.rng.random() * n)
    row = at if rows is None else int(rows[at])
    decision.runs["any"] = Run("any", picked=(given.endpoints.records[row],), picked_rows=(row,))
    return decision


def _narrow(context: Context, given: Given) -> None:
    """Leave out what the gateway's hint excludes and what is cooling."""
    records = given.endpoints.records
    allowed: Mask | None = given.subset
    if allowed is None and given.cooling is None and records:
        return
    if allowed is not None:
        context.decision.steps.append(Step("subset", keys_at(records, ~allowed)))
    if given.cooling is not None:
        hot = ~given.cooling if allowed is None else allowed & ~given.cooling
        # If all that the hint allows are cooling, they stay candidates.
        if hot.any():
            context.decision.steps.append(Step("cooling", keys_at(records, given.cooling)))
            allowed = hot
    _keep(context, allowed, "failed to find endpoint candidates for serving the request", "subset")


def _keep(context: Context, allowed: Mask | None, message: str, by: str) -> None:
    endpoints: Endpoints = context.values["endpoints"]
    rows: Rows | None = None if allowed is None or bool(allowed.all()) else np.flatnonzero(allowed)
    context.rows = rows
    if not (len(endpoints) if rows is None else len(rows)):
        raise Refused(503, message, "rejected-no-endpoints", by)


def _measure(setup: Setup, context: Context, endpoints: Endpoints) -> Generator[Slow, Any, None]:
    n = len(endpoints.records)
    for signal in setup.signals:
        answer = context.ask(signal.bound, "signal", context.values)
        if type(answer) not in PLAIN and _awaitable(answer):
            answer = yield Slow(signal.bound.name, answer, signal.provides.timeout_ms)
            if answer is None:
                context.decision.flaws.append(Flaw(signal.bound.name, "timeout"))
        _store(signal, context, answer, n)


def _awaitable(answer: Any) -> bool:
    # `inspect.isawaitable` asks an abstract class, which takes a microsecond to say no.
    kind = type(answer)
    return (hasattr(kind, "__await__") or kind is GeneratorType) and inspect.isawaitable(answer)


def _store(signal: Measured, context: Context, answer: Any, n: int) -> None:
    slots = signal.slots
    parts: tuple[Any, ...] = (answer,) if len(slots) == 1 else answer
    if answer is None or len(parts) != len(slots):
        parts = (None,) * len(slots)
    values, told = context.values, context.decision.signals
    for (key, default, is_column), part in zip(slots, parts, strict=True):
        if is_column:
            value = checked_column(context, signal.bound, part, default, n)
        else:
            value = default if answer is None else part
        values[key] = told[key] = value


def _screen(setup: Setup, context: Context) -> None:
    """Each screener sees the same candidates; what every one of them keeps is left."""
    if not setup.screeners:
        return
    values = context.narrowed(context.rows)
    records = values["endpoints"].records
    kept: Mask = np.ones(len(records), dtype=np.bool_)
    for bound in setup.screeners:
        mask = checked_mask(context, bound, context.ask(bound, "screener", values), len(records))
        if mask is not None:
            context.decision.steps.append(Step(bound.name, keys_at(records, ~mask)))
            kept &= mask
    allowed: Mask = np.zeros(len(context.values["endpoints"]), dtype=np.bool_)
    allowed[np.flatnonzero(kept) if context.rows is None else context.rows[kept]] = True
    _keep(context, allowed, "screeners eliminated all endpoint candidates", "screeners")


def _admit(setup: Setup, context: Context) -> None:
    if not setup.admitters:
        return
    values = context.narrowed(context.rows)
    for bound in setup.admitters:
        refusal = context.ask(bound, "admitter", values)
        if isinstance(refusal, Refused):
            refusal.by = refusal.by or bound.name
            raise refusal


def _run_profiles(setup: Setup, context: Context) -> None:
    """Run the profiles the handler names until it names none; the primary run's refusal is the request's."""
    decision = context.decision
    names = tuple(setup.profiles)
    asked = {**context.values, "profiles": names, "runs": decision.runs}
    for _ in range(len(names) + 1):
        wanted = _wanted(context, setup.handler, asked)
        for name in wanted:
            if name in setup.profiles and name not in decision.runs:
                decision.runs[name] = run(setup.profiles[name], context)
        # Once all have run, whatever it names has run.
        if not wanted or len(decision.runs) == len(names):
            break
    request: Request = context.values["request"]
    decision.primary = _primary(setup, context, request)
    if not decision.picked:
        refused = [r.refused for r in decision.runs.values() if r.refused is not None]
        raise (
            refused[0]
            if refused
            else Refused(429, "failed to find target endpoint: no profile ran", by=setup.handler.name)
        )


def _wanted(context: Context, handler: Bound, asked: Mapping[str, Any]) -> list[str]:
    answer = context.ask(handler, "profile_handler", asked)
    if answer is None or (isinstance(answer, list | tuple) and all(isinstance(name, str) for name in answer)):
        return list(answer or ())
    context.decision.flaws.append(Flaw(handler.name, "shape", "wanted a list of profiles' names"))
    return []


def _primary(setup: Setup, context: Context, request: Request) -> str:
    runs = context.decision.runs
    if setup.primary is None:
        return _first_picked(runs)
    try:
        return setup.primary(request, runs)
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's code: the first run that picked counts
        context.decision.flaws.append(Flaw(setup.handler.name, "exception", shown(error)))
        return _first_picked(runs)


def _first_picked(runs: Mapping[str, Run]) -> str:
    return next((name for name, result in runs.items() if result.picked), next(iter(runs), ""))
