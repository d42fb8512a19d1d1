"""The Lease that says who leads: as it is read, whoever wrote into it, and as it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec

from epp.kube import UNREADABLE, ApiError
from epp.kube.events import older

LONGEST_S = 3600
"""A duration beyond an hour is somebody's slip of the pen; it counts as none told."""
RELEASED_S = 1
"""Duration of a lease that is given up, as client-go writes it: one that is not read as free soon ends."""
MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True)
class Timings:
    """When a lease ends, and how often it is tried for. Raises ValueError for what can't work."""

    duration_s: float = 15.0
    """Others wait so long after the last change they saw."""
    renew_deadline_s: float = 10.0
    """Who could not renew for so long leads no more, whatever the lease says."""
    retry_s: float = 2.0

    def __post_init__(self) -> None:
        duration, deadline, retry = (f"{s:g} s" for s in (self.duration_s, self.renew_deadline_s, self.retry_s))
        if not 1 <= self.duration_s <= LONGEST_S or self.duration_s % 1:
            raise ValueError(f"--ha-lease-duration must be whole seconds, from 1 to {LONGEST_S}; got {duration}")
        if not self.renew_deadline_s < self.duration_s:
            raise ValueError(
                f"--ha-renew-deadline ({deadline}) must be below --ha-lease-duration ({duration}): "
                "who can't renew must stop leading before others may take over"
            )
        if not 0 < 2 * self.retry_s <= self.renew_deadline_s:
            raise ValueError(
                f"--ha-retry-period ({retry}) must be at most half of --ha-renew-deadline ({deadline}): "
                "one lost message must not cost the lead"
            )


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as far as election goes; what can't be read of it counts as not told."""

    holder: str = ""
    """"" = nobody: take it."""
    duration_s: int | None = None
    """None = not told, or nonsense."""
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0
    version: str = ""
    """resourceVersion."""
    metadata: bytes = b""
    """As it came, to be written back: labels and owners are others' business."""
    exists: bool = True

    @property
    def record(self) -> tuple[object, ...]:
        """What a renewal changes. A new label is none."""
        return self.exists, self.holder, self.duration_s, self.acquired, self.renewed, self.transitions

    def older_than(self, other: Lease) -> bool:
        """Whether it is surely a former state; versions that are no numbers tell nothing."""
        return older(self.version, other.version)


@dataclass(frozen=True, slots=True)
class Claim:
    """What to write into the lease; the times are added while it is written."""

    over: Lease
    """What it replaces, refused if that has changed; created if that does not exist."""
    holder: str
    duration_s: int
    transitions: int = 0
    acquired: str = ""
    """"" = now."""


class _Wire(msgspec.Struct):
    metadata: msgspec.Raw
    spec: Any = None  # whatever somebody wrote there


class _Metadata(msgspec.Struct, rename="camel"):
    resource_version: str


def read_lease(body: bytes | msgspec.Raw) -> Lease:
    """The Lease object in `body`. Raises ApiError if it is none: then nothing can be written over it either."""
    try:
        wire = msgspec.json.decode(body, type=_Wire)
        version = msgspec.json.decode(wire.metadata, type=_Metadata).resource_version
    except UNREADABLE as error:
        raise ApiError(0, f"what came is no Lease: {error}") from None
    spec: Mapping[str, object] = wire.spec if isinstance(wire.spec, dict) else {}
    return Lease(
        holder=_text(spec.get("holderIdentity")),
        duration_s=_number(spec.get("leaseDurationSeconds"), 1, LONGEST_S),
        acquired=_time(spec.get("acquireTime")),
        renewed=_text(spec.get("renewTime")),
        transitions=_number(spec.get("leaseTransitions"), 0, 2**31 - 2) or 0,
        version=version,
        metadata=bytes(wire.metadata),
    )


def written(claim: Claim, name: str, namespace: str, wall_s: float) -> bytes:
    """The object to send: POST if the claim is over nothing, else PUT. `wall_s` = seconds since 1970."""
    now = micro_time(wall_s)
    metadata: object = {"name": name, "namespace": namespace}
    return msgspec.json.encode(
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": msgspec.Raw(claim.over.metadata) if claim.over.exists else metadata,
            "spec": {
                "holderIdentity": claim.holder,
                "leaseDurationSeconds": claim.duration_s,
                "acquireTime": claim.acquired or now,
                "renewTime": now,
                "leaseTransitions": claim.transitions,
            },
        }
    )


def micro_time(wall_s: float) -> str:
    """RFC 3339 with microseconds, as MicroTime fields are written."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def lease_name(namespace: str, pool: str) -> str:
    """The Lease that pickers of one pool compete for, Go's among them."""
    return f"epp-{namespace}-{pool}.llm-d.ai"


def new_identity(environ: Mapping[str, str], host: str) -> str:
    """A name no other process has, and no earlier life of this one."""
    return f"{environ.get('POD_NAME') or host}_{uuid4()}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _time(value: object) -> str:
    return value if isinstance(value, str) and MICRO_TIME.fullmatch(value) else ""


def _number(value: object, least: int, most: int) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and least <= value <= most else None
