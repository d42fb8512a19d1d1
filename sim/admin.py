"""/admin/config: what may be changed while the engine serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec

from sim.api import ApiError
from sim.faults import FAILURES, Fault, Faults
from sim.settings import LATENCIES, seconds
from sim.types import Speed


class Change(msgspec.Struct, forbid_unknown_fields=True, rename="kebab", omit_defaults=True):
    """Keys are the flags' names; what is absent stays as it is."""

    time_to_first_token: str | None = None
    inter_token_latency: str | None = None
    prefill_overhead: str | None = None
    prefill_time_per_token: str | None = None
    time_factor_under_load: Annotated[float, msgspec.Meta(ge=1)] | None = None
    failure_injection_rate: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    failure_types: Annotated[list[str], msgspec.Meta(min_length=1)] | None = None
    fault: Fault | None = None
    fault_duration: str | None = None
    """How long the fault lasts; until changed if absent."""


def decode(body: bytes) -> Change:
    """ApiError(400) for unknown keys, wrong types and a refusal without end."""
    try:
        change = msgspec.json.decode(body, type=Change)
    except msgspec.DecodeError as wrong:
        raise ApiError(400, f"{wrong}; keys: {', '.join(Change.__struct_encode_fields__)}") from wrong
    if change.fault is Fault.REFUSE and not change.fault_duration:
        raise ApiError(400, "fault refuse needs fault-duration: nobody could switch it back.", "fault-duration")
    for name in change.failure_types or ():
        if name not in FAILURES:
            raise ApiError(400, f"no failure type {name!r}; have: {', '.join(FAILURES)}", "failure-types")
    return change


def fault_s(change: Change) -> float | None:
    """How long the fault is to last; None = until changed. ApiError(400) if that is no duration."""
    return None if change.fault_duration is None else _seconds("fault-duration", change.fault_duration)


def new_speed(change: Change, speed: Speed) -> Speed:
    """ApiError(400) for a bad duration."""
    given = {flag: getattr(change, flag.replace("-", "_")) for flag in LATENCIES}
    changed = {LATENCIES[flag]: _seconds(flag, text) for flag, text in given.items() if text is not None}
    factor = speed.time_factor_under_load
    if change.time_factor_under_load is not None:
        factor = change.time_factor_under_load
    return replace(speed, time_factor_under_load=factor, **changed)


def change_faults(change: Change, faults: Faults) -> None:
    if change.failure_injection_rate is not None:
        faults.rate = change.failure_injection_rate
    if change.failure_types is not None:
        faults.types = change.failure_types
    if change.fault is not None:
        faults.fault = change.fault


def current(speed: Speed, faults: Faults) -> Change:
    """What a change that changes nothing would say."""
    latencies = {flag: f"{getattr(speed, name) * 1e6:.3f}us" for flag, name in LATENCIES.items()}
    return Change(
        **{flag.replace("-", "_"): text for flag, text in latencies.items()},
        time_factor_under_load=speed.time_factor_under_load,
        failure_injection_rate=faults.rate,
        failure_types=list(faults.types),
        fault=faults.fault,
    )


def _seconds(key: str, text: str) -> float:
    try:
        return seconds(text)
    except ValueError as wrong:
        raise ApiError(400, str(wrong), key) from wrong
