"""For authors of plug-ins and for us: made-up requests and endpoints, and the check every plug-in passes at load."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from epp.plugins import CALLED, GIVEN, GIVEN_ONLY, Plugin, PluginType, raised, reads_of
from epp.settings import PluginError
from epp.signals import ColumnOf
from epp.types import COLUMNS, Column, Endpoint, Endpoints, Prompt, Refused, Request

SIZES = (0, 1, 5)
"""Numbers of made-up endpoints each plug-in is checked on."""


def request(text: str = "Tell me a story.", *, model: str = "model-a", **fields: Any) -> Request:
    """A made-up request with one prompt; `fields` as in epp.Request, headers as `{"name": "value"}`."""
    headers = {name.lower(): (value,) for name, value in fields.pop("headers", {}).items()}
    prompt = Prompt([text.encode()]) if text else Prompt()
    defaults: dict[str, Any] = {
        "id": "request-1",
        "incoming_model": model,
        "prompts": (prompt,),
        "body_bytes": len(text),
    }
    return Request(model=model, headers=headers, **{**defaults, **fields})


def endpoints(
    *,
    labels: Sequence[Mapping[str, str]] = (),
    known: Sequence[bool] = (),
    loras: Sequence[tuple[Sequence[str], Sequence[str]]] = (),
    attributes: Mapping[str, Sequence[float | None]] | None = None,
    now: float = 0.0,
    **columns: Sequence[float],
) -> Endpoints:
    """Made-up endpoints; as many rows as the longest argument, e.g. `endpoints(waiting=[0, 9])`.

    `loras` holds (running, waiting) names a row; in `attributes` None means that the row has none. Columns as in
    epp.Endpoints, 0 where not given.
    """
    unknown = set(columns) - set(COLUMNS)
    if unknown:
        raise TypeError(f"no column named {unknown.pop()!r}; have: {', '.join(COLUMNS)}")
    sized = [*columns.values(), labels, known, loras, *(attributes or {}).values()]
    n = max((len(values) for values in sized), default=0)
    return Endpoints(
        tuple(
            Endpoint(f"e{row}", f"10.0.{row // 250}.{row % 250 + 1}", 8000, labels=labels[row] if labels else {})
            for row in range(n)
        ),
        columns={name: _column(columns.get(name), n) for name in COLUMNS},
        known=np.array(known, dtype=np.bool_) if known else np.ones(n, dtype=np.bool_),
        loras=[(frozenset(r), frozenset(w)) for r, w in loras] or [(frozenset(), frozenset())] * n,
        attributes={key: _attribute(values) for key, values in (attributes or {}).items()},
        derived={},
        now=now,
    )


def _column(values: Sequence[float] | None, n: int) -> Column:
    made = np.zeros(n) if values is None else np.array(values, dtype=np.float64)
    made.flags.writeable = False
    return made


def _attribute(values: Sequence[float | None]) -> tuple[Column, Any]:
    present = np.array([value is not None for value in values], dtype=np.bool_)
    return np.array([value or 0.0 for value in values]), present


def check_scorer(scorer: Callable[..., Any], **settings: Any) -> None:
    """Raise PluginError if `scorer` breaks the contract on 0, 1 or 5 made-up endpoints. For an author's own tests."""
    instance = scorer(**settings) if inspect.isclass(scorer) else functools.partial(scorer, **settings)
    name = getattr(scorer, "__name__", "scorer")
    kind = PluginType(name, ("scorer",), scorer, (), name)
    check(Plugin(name, kind, instance, settings), {})


def check(plugin: Plugin, provided: Mapping[str, object]) -> None:
    """Call `plugin` on made-up endpoints in each of its places; PluginError names it, the rule and the remedy.

    `provided` holds every signal there is, with its default.
    """
    for place in plugin.places:
        if place not in CALLED:
            continue
        call = plugin.call(place)
        if not callable(call):
            raise PluginError(f"{plugin.name}: its class needs a method __call__ to be a {place}")
        _check_names(plugin, place, provided)
        if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004
            if place != "signal":
                raise PluginError(f"{plugin.name}: only a signal may be async; make this {place} a plain function")
            continue
        if place != "profile_handler":
            for n in SIZES:
                _check_call(plugin, place, provided, n)


def _check_names(plugin: Plugin, place: str, provided: Mapping[str, object]) -> None:
    given = GIVEN | GIVEN_ONLY.get(place, frozenset())
    for name, default in plugin.reads(place).items():
        if name not in given and name not in provided and default is inspect.Parameter.empty:
            choices = ", ".join(sorted(given | set(provided)))
            raise PluginError(f"{plugin.name}: nobody provides {name!r}; a {place} may read: {choices}")


def _check_call(plugin: Plugin, place: str, provided: Mapping[str, object], n: int) -> None:
    values = _made_up(n, provided)
    reads = reads_of(plugin.call(place))
    arguments = [values.get(name, default) for name, default in reads.items()]
    where = f"{plugin.name} ({place}, {n} endpoint{'' if n == 1 else 's'})"
    try:
        result = plugin.call(place)(*arguments)
    except Refused:
        return
    except Exception as error:  # whatever a stranger's code raises
        raise PluginError(f"{where}: raised {raised(error)}; it must work for any request and any number") from error
    rule = _broken(place, result, n)
    if rule:
        raise PluginError(f"{where}: {rule}")


def _made_up(n: int, provided: Mapping[str, object]) -> dict[str, Any]:
    signals = {
        name: np.full(n, default.default) if isinstance(default, ColumnOf) else default
        for name, default in provided.items()
    }
    spread = list(range(n))
    made = endpoints(
        waiting=[float(x) for x in spread],
        running=[2.0 * x for x in spread],
        kv_usage=[x / 5.0 for x in spread],
        labels=[{} for _ in spread],
    )
    rng = np.random.default_rng(0)
    return {**signals, "request": request(), "endpoints": made, "now": 1.0, "rng": rng, "scores": np.zeros(n)}


def _broken(place: str, result: Any, n: int) -> str:
    """The rule `result` breaks, or ""."""
    if place == "scorer":
        return _broken_scores(result, n)
    if place in {"filter", "screener"}:
        good = isinstance(result, np.ndarray) and result.dtype == np.bool_ and result.shape == (n,)
        return "" if good else f"must return a boolean mask of shape ({n},), got {_shown(result)}"
    if place == "detector":
        good = isinstance(result, np.ndarray) and result.dtype == np.float64 and result.shape == (n,)
        if not good:
            return f"must return each endpoint's saturation, float64 of shape ({n},); got {_shown(result)}"
        return "" if np.isfinite(result).all() and (result >= 0.0).all() else "saturations are finite and not below 0"
    if place == "admitter":
        good = result is None or isinstance(result, Refused)
        return "" if good else f"must return None or epp.Refused, got {_shown(result)}"
    return ""


def _broken_scores(result: Any, n: int) -> str:
    if not isinstance(result, np.ndarray) or result.dtype != np.float64 or result.shape != (n,):
        return f"must return a float64 array of shape ({n},), got {_shown(result)}"
    if not np.isfinite(result).all():
        return "returned NaN or infinity; scores are finite numbers in [0, 1]"
    if n and (result.min() < 0.0 or result.max() > 1.0):
        return f"scores must be in [0, 1], higher is better; got {result.min():g} … {result.max():g}"
    return ""


def _shown(result: Any) -> str:
    if isinstance(result, np.ndarray):
        return f"{result.dtype} of shape {result.shape}"
    return type(result).__name__
