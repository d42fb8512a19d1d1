"""What tests of the built-in plug-ins share: settings as in YAML, named endpoints, made-up decisions."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epp import Decision, Endpoint, Endpoints, Request, Run
from epp.settings import decode, settings_of
from epp.testing import endpoints
from scorers.tokens import Tokens


def build(target: Callable[..., Any], **parameters: object) -> Any:
    """A plug-in from `parameters` as they stand in YAML; raises PluginError or ValueError."""
    given = decode("plugin", settings_of(target), parameters)
    return target(**given)


def called(endpoint: str, namespace: str = "default", **fields: Any) -> Endpoint:
    return Endpoint(endpoint, fields.pop("address", "10.0.0.1"), fields.pop("port", 8000), namespace, **fields)


def table(*records: Endpoint | str, now: float = 0.0, **columns: Sequence[float]) -> Endpoints:
    """Endpoints with these records (a string: one of that name)."""
    made = endpoints(now=now, **{"waiting": [0.0] * len(records), **columns})
    made.records = tuple(called(record) if isinstance(record, str) else record for record in records)
    return made


def packed(*prompts: Sequence[int]) -> Tokens:
    """Tokens with these ids."""
    rows = tuple(struct.pack(f"<{len(ids)}I", *ids) for ids in prompts)
    return Tokens(rows, sum(map(len, prompts)))


def decided(
    request: Request,
    candidates: Endpoints,
    picks: Mapping[str, str],
    *,
    signals: Mapping[str, Any] | None = None,
    now: float = 0.0,
) -> Decision:
    """A decision whose profiles picked the endpoints of these names; the first profile is the primary one."""
    names = [record.name for record in candidates.records]
    runs = {
        profile: Run(
            profile,
            candidates.records,
            picked=(candidates.records[names.index(name)],),
            picked_rows=(names.index(name),),
        )
        for profile, name in picks.items()
    }
    decision = Decision(request.id, request.model, now, len(candidates), next(iter(picks), ""), runs)
    decision.signals = dict(signals or {})
    return decision


def measured(signal: Any, *arguments: Any) -> dict[str, Any]:
    """What a signal says, by the names it provides."""
    answer = getattr(signal, "measure", signal)(*arguments)
    names = list(signal.provides.values)
    return dict(zip(names, answer if len(names) > 1 else (answer,), strict=True))
