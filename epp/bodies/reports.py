"""The load report an engine may put in a response header (`endpoint-load-metrics`, ORCA's JSON and TEXT forms)."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from epp.bodies.jsonbody import MALFORMED
from epp.types import MOST_COUNTED, Reading


class _Report(msgspec.Struct):
    named_metrics: dict[str, float] = {}


_JSON = msgspec.json.Decoder(_Report)


def reading(report: str) -> Reading | None:
    """What the header's value tells of vLLM's queue and KV cache; None if it is nothing of the kind.

    `waiting` is a number of requests, `kv_usage` a share from 0 to 1; a number outside counts as not told.
    """
    form, _, body = report.strip().partition(" ")
    metrics = _metrics(form, body)
    waiting = _within(metrics.get("num_requests_waiting"), MOST_COUNTED)
    kv_usage = _within(metrics.get("kv_cache_usage_perc"), 1.0)
    return None if waiting is None and kv_usage is None else Reading(waiting=waiting, kv_usage=kv_usage)


def _metrics(form: str, body: str) -> Mapping[str, float]:
    try:
        match form:
            case "JSON":
                return _JSON.decode(body).named_metrics
            case "TEXT":
                return dict([_metric(part) for part in body.split(",")])
    except (*MALFORMED, ValueError):
        pass
    return {}


def _metric(part: str) -> tuple[str, float]:
    name, _, value = part.strip().partition("=")
    return name.removeprefix("named_metrics."), float(value)


def _within(value: float | None, highest: float) -> float | None:
    return value if value is not None and 0 <= value <= highest else None
