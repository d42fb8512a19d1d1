"""Kubernetes objects as far as they are read here; everything else in them is skipped while decoding."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

Port = Annotated[int, Meta(ge=1, le=65535)]


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """metadata of any object."""

    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """What every kind has."""

    metadata: Metadata = Metadata()


class Condition(msgspec.Struct, frozen=True):
    type: str = ""
    status: str = ""


class PodStatus(msgspec.Struct, frozen=True, rename="camel"):
    pod_ip: str = msgspec.field(default="", name="podIP")
    conditions: tuple[Condition, ...] | None = None


class Pod(Record, frozen=True, rename="camel"):
    status: PodStatus = PodStatus()


class Selector(msgspec.Struct, frozen=True, rename="camel"):
    match_labels: dict[str, str] = {}


class TargetPort(msgspec.Struct, frozen=True):
    number: Port


class PoolSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: Selector
    target_ports: Annotated[tuple[TargetPort, ...], Meta(min_length=1, max_length=8)]
    app_protocol: str = ""


class InferencePool(Record, frozen=True, rename="camel", kw_only=True):
    """inference.networking.k8s.io/v1."""

    spec: PoolSpec


class OldPoolSpec(msgspec.Struct, frozen=True, rename="camel"):
    selector: dict[str, str]
    target_port_number: Port


class OldInferencePool(Record, frozen=True, rename="camel", kw_only=True):
    """inference.networking.x-k8s.io/v1alpha2."""

    spec: OldPoolSpec


class PoolRef(msgspec.Struct, frozen=True):
    """Which pool an objective or a rewrite is for."""

    name: str
    group: str = "inference.networking.k8s.io"
    kind: str = "InferencePool"


class ObjectiveSpec(msgspec.Struct, frozen=True, rename="camel"):
    pool_ref: PoolRef | None = None
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] | None = None


class InferenceObjective(Record, frozen=True, rename="camel", kw_only=True):
    """v1alpha2 of either group."""

    spec: ObjectiveSpec


class ModelValue(msgspec.Struct, frozen=True):
    value: str = ""
    type: Literal["Exact"] = "Exact"


class ModelMatch(msgspec.Struct, frozen=True):
    model: ModelValue | None = None


class RewriteTarget(msgspec.Struct, frozen=True, rename="camel"):
    model_rewrite: str
    weight: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None


class RewriteSpecRule(msgspec.Struct, frozen=True):
    targets: Annotated[tuple[RewriteTarget, ...], Meta(min_length=1)]
    matches: tuple[ModelMatch, ...] | None = None


class RewriteSpec(msgspec.Struct, frozen=True, rename="camel"):
    pool_ref: PoolRef | None = None
    rules: tuple[RewriteSpecRule, ...] = ()


class InferenceModelRewrite(Record, frozen=True, rename="camel", kw_only=True):
    """v1alpha2 of either group."""

    spec: RewriteSpec


R = TypeVar("R", bound=Record)


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    """metadata of a list: where its watch begins, and where its next page does."""

    resource_version: str = ""
    next: str = msgspec.field(default="", name="continue")


class Page(msgspec.Struct, Generic[R], frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[R] | None = None


class RawPage(msgspec.Struct, frozen=True):
    """A page whose objects are decoded one by one, since one of them is broken."""

    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


class Event(msgspec.Struct, Generic[R], frozen=True):
    """A line of a watch."""

    type: str
    object: R


class RawEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class Failure(msgspec.Struct, frozen=True):
    """A Status object in an ERROR event."""

    code: int = 0
    message: str = ""
    reason: str = ""
