"""/debug/endpoints: who the endpoints are and what the picker knows of each."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from epp.types import Endpoints

NEVER_S = 1e8
"""Readings older than this were never made."""


class EndpointState(msgspec.Struct, frozen=True):
    """One endpoint, as the scorers see it at this moment."""

    name: str
    """namespace/name."""
    address: str
    labels: Mapping[str, str]
    metrics_address: str
    rank: int
    known: bool
    """A fresh reading exists; else waiting, running and kv_usage are the mean of the others."""
    age_s: float | None
    """Since the last reading; null = there was none."""
    interval_s: float
    """It is read every so often at present."""
    waiting: float
    running: float
    kv_usage: float
    """These three are the reading, corrected by what was sent and finished since."""
    inflight_tokens: float
    """Prompt tokens sent there that are still to be computed."""
    inflight: int
    """Requests sent there and not finished."""
    block_tokens: int
    num_blocks: int
    max_loras: int
    """These three are 0 while the engine has not told them."""
    running_loras: list[str]
    waiting_loras: list[str]
    cooling_s: float | None
    """Left out for failing, for so long still; 0 = its probe is due or under way; null = not cooling."""


def endpoint_states(endpoints: Endpoints, cooling: Mapping[str, float]) -> list[EndpointState]:
    """By name; `cooling` as Health.cooling tells it. A copy: the columns may change afterwards."""
    states = [_state(endpoints, row, cooling.get(record.key)) for row, record in enumerate(endpoints.records)]
    return sorted(states, key=lambda state: state.name)


def _state(endpoints: Endpoints, row: int, cooling_s: float | None) -> EndpointState:
    record, age_s = endpoints.records[row], endpoints.now - float(endpoints.column("read_at")[row])
    running_loras, waiting_loras = endpoints.loras()[row]
    return EndpointState(
        name=record.key,
        address=record.host_port,
        labels=record.labels,
        metrics_address=record.metrics_address or record.host_port,
        rank=record.rank,
        known=bool(endpoints.known[row]),
        age_s=round(age_s, 3) if age_s < NEVER_S else None,
        interval_s=float(endpoints.column("interval_s")[row]),
        waiting=float(endpoints.waiting[row]),
        running=float(endpoints.running[row]),
        kv_usage=float(endpoints.kv_usage[row]),
        inflight=int(endpoints.inflight[row]),
        inflight_tokens=float(endpoints.inflight_tokens[row]),
        block_tokens=int(endpoints.block_tokens[row]),
        num_blocks=int(endpoints.num_blocks[row]),
        max_loras=int(endpoints.max_loras[row]),
        running_loras=sorted(running_loras),
        waiting_loras=sorted(waiting_loras),
        cooling_s=None if cooling_s is None else round(cooling_s, 3),
    )
