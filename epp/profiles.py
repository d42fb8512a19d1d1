"""Which profiles run for a request and what their results mean together: the whole decision.

`decide` is a plain call; only where a slow (async) signal is needed does it leave the rest to a generator.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import numpy as np

from epp.plan import Given, Measured, Setup, Slow
from epp.plugins import PASSED_ON, raised
from epp.scheduler import Bound, Context, checked_column, checked_mask, keys_at, run
from epp.types import Decision, Flaw, Mask, Refused, Rows, Run, Step

TEXT: Final = str.__str__
Wait = Generator[Slow, Any, Decision]
"""Yields slow signals, is sent their values (or None if late or failed), returns the decision."""


def decide(setup: Setup, given: Given, columns: frozenset[str]) -> Decision | Wait:
    """Decide where a request goes, as far as that needs no slow signal; what is to be waited for is a generator.

    Raises Refused, with the decision so far as its `decision`; so does the generator.
    """
    context = _begun(given, columns)
    began = given.clock()
    try:
        _narrow(context, given)
        at = _measure(setup, context, 0)
        if at < len(setup.signals):
            return _decide_slowly(setup, context, at, began)
        _choose(setup, context)
    except Refused as refusal:
        refusal.decision = context.decision
        raise
    finally:
        context.decision.took_s = given.clock() - began
    return context.decision


def _decide_slowly(setup: Setup, context: Context, at: int, began: float) -> Wait:
    """From the slow signal at `at`, whose answer is in the context, to the decision."""
    signals, decision = setup.signals, context.decision
    try:
        while at < len(signals):
            signal = signals[at]
            answer = yield Slow(signal.bound.name, context.awaited, signal.provides.timeout_ms)
            if answer is None:
                decision.flaws.append(Flaw(signal.bound.name, "timeout", "its readers get its default"))
            _store(signal, context, answer)
            at = _measure(setup, context, at + 1)
        _choose(setup, context)
    except Refused as refusal:
        refusal.decision = decision
        raise
    finally:
        decision.took_s = context.clock() - began
    return decision


def _begun(given: Given, columns: frozenset[str]) -> Context:
    request, endpoints, now = given.request, given.endpoints, given.now
    decision = Decision(request.id, request.model, now, len(endpoints.records))
    values: dict[str, Any] = {"request": request, "endpoints": endpoints, "now": now, "rng": given.rng}
    return Context(values, columns, None, decision, given.clock, given.suspended)


def _choose(setup: Setup, context: Context) -> None:
    """Once all signals are known."""
    if setup.screeners:
        _screen(setup, context)
    if setup.admitters:
        _admit(setup, context)
    _run_profiles(setup, context)


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
    endpoints = context.endpoints
    rows: Rows | None = None if allowed is None or bool(allowed.all()) else np.flatnonzero(allowed)
    context.rows = rows
    if not (len(endpoints) if rows is None else len(rows)):
        raise Refused(503, message, "rejected-no-endpoints", by)


def _measure(setup: Setup, context: Context, at: int) -> int:
    """Ask the signals from `at` on, up to one that must be awaited: its place, or how many signals there are."""
    signals = setup.signals
    for place in range(at, len(signals)):
        signal = signals[place]
        answer = context.ask(signal.bound, "signal", context.values)
        if signal.awaits(answer):
            context.awaited = answer
            return place
        _store(signal, context, answer)
    return len(signals)


def _store(signal: Measured, context: Context, answer: Any) -> None:
    slots = signal.slots
    n = len(context.endpoints.records)
    parts = (answer,) if len(slots) == 1 else _parts(signal, context, answer)
    values, told = context.values, context.decision.signals
    for at, (key, default, is_column) in enumerate(slots):
        part = parts[at] if parts else None
        if is_column:
            value = checked_column(context, signal.bound, part, default, n)
        else:
            value = default if answer is None or not parts else part
        values[key] = told[key] = value


def _parts(signal: Measured, context: Context, answer: Any) -> tuple[Any, ...]:
    """The values of a signal that provides several; none, which is noted, if it gave anything but a tuple of them."""
    many = len(signal.slots)
    if type(answer) is tuple and len(answer) == many:
        return answer
    if answer is not None:
        try:
            parts = tuple(answer) if issubclass(type(answer), (tuple, list)) else ()
            if len(parts) == many:
                return parts
        except PASSED_ON:
            raise
        except BaseException:  # noqa: BLE001 - a stranger's class
            pass
        context.decision.flaws.append(Flaw(signal.bound.name, "shape", f"wanted a tuple of {many} values"))
    return ()


def _screen(setup: Setup, context: Context) -> None:
    """Each screener sees the same candidates; what every one of them keeps is left."""
    values = context.narrowed(context.rows)
    records = values["endpoints"].records
    kept: Mask = np.ones(len(records), dtype=np.bool_)
    for bound in setup.screeners:
        mask = checked_mask(context, bound, context.ask(bound, "screener", values), len(records))
        if mask is not None:
            context.decision.steps.append(Step(bound.name, keys_at(records, ~mask)))
            kept &= mask
    allowed: Mask = np.zeros(len(context.endpoints), dtype=np.bool_)
    allowed[np.flatnonzero(kept) if context.rows is None else context.rows[kept]] = True
    _keep(context, allowed, "screeners eliminated all endpoint candidates", "screeners")


def _admit(setup: Setup, context: Context) -> None:
    values = context.narrowed(context.rows)
    for bound in setup.admitters:
        refusal = context.ask(bound, "admitter", values)
        if issubclass(type(refusal), Refused):
            refusal.by = refusal.by or bound.name
            raise refusal


def _run_profiles(setup: Setup, context: Context) -> None:
    """Run the profiles the handler names until it names nothing new. If the primary run picked nobody, the first
    refusal of a run is the request's."""
    decision = context.decision
    profiles, runs = setup.profiles, decision.runs
    asked = context.values.copy()
    asked["profiles"], asked["runs"] = tuple(profiles), runs
    before = -1
    while before < len(runs) < len(profiles):
        before = len(runs)
        for name in _wanted(context, setup.handler, asked):
            if name in profiles and name not in runs:
                runs[name] = run(profiles[name], context)
    decision.primary = _primary(setup, context)
    if not decision.picked:
        refused = [r.refused for r in decision.runs.values() if r.refused is not None]
        raise (
            refused[0]
            if refused
            else Refused(429, "failed to find target endpoint: no profile ran", by=setup.handler.name)
        )


def _wanted(context: Context, handler: Bound, asked: dict[str, Any]) -> list[str]:
    answer = context.ask(handler, "profile_handler", asked)
    if answer is None:
        return []
    try:
        # As plain text, whatever class a stranger made of it; anything else is a TypeError.
        if issubclass(type(answer), (list, tuple)):
            return [TEXT(name) for name in answer]
    except PASSED_ON:
        raise
    except BaseException:  # noqa: BLE001 - noted below
        pass
    context.decision.flaws.append(Flaw(handler.name, "shape", "wanted a list of profiles' names"))
    return []


def _primary(setup: Setup, context: Context) -> str:
    runs = context.decision.runs
    if setup.primary is None:
        return _first_picked(runs)
    try:
        return TEXT(setup.primary(context.values["request"], runs))
    except PASSED_ON:
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's code: the first run that picked counts
        context.decision.flaws.append(Flaw(setup.handler.name, "exception", raised(error)))
        return _first_picked(runs)


def _first_picked(runs: dict[str, Run]) -> str:
    for name, result in runs.items():
        if result.picked:
            return name
    return next(iter(runs), "")
