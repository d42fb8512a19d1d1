"""Filters and scorers by the endpoints' labels. All of them are computed once per change of the endpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from epp import Endpoint, Endpoints, Mask, Request, Scores

ROLE = "llm-d.ai/role"
DECODE = frozenset({"decode", "prefill-decode", "both", "encode-prefill-decode"})
PREFILL = frozenset({"prefill", "encode-prefill", "prefill-decode", "both", "encode-prefill-decode"})
ENCODE = frozenset({"encode", "encode-prefill", "encode-prefill-decode"})
Name = Annotated[str, Meta(min_length=1)]


def decode_filter(endpoints: Endpoints) -> Mask:
    """Keep the endpoints whose role includes decode, and those without a role."""
    return endpoints.label_in(ROLE, DECODE, missing=True)


def prefill_filter(endpoints: Endpoints) -> Mask:
    """Keep the endpoints whose role includes prefill."""
    return endpoints.label_in(ROLE, PREFILL)


def encode_filter(endpoints: Endpoints) -> Mask:
    """Keep the endpoints whose role includes encode."""
    return endpoints.label_in(ROLE, ENCODE)


class Requirement(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One matchExpression of a Kubernetes label selector."""

    key: Name
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.operator in {"In", "NotIn"}) != bool(self.values):
            rule = "needs values" if self.operator in {"In", "NotIn"} else "takes no values"
            raise ValueError(f"matchExpressions: {self.operator} on {self.key!r} {rule}")

    def met_by(self, labels: Mapping[str, str]) -> bool:
        """As in Kubernetes, NotIn is met where the label is missing."""
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "Exists")


class LabelSelectorFilter:
    """Keep the endpoints that a Kubernetes label selector matches; an empty one matches all."""

    def __init__(
        self,
        *,
        match_labels: dict[str, str] | None = None,
        match_expressions: tuple[Requirement, ...] = (),
    ) -> None:
        equal = tuple(Requirement(key, "In", (value,)) for key, value in (match_labels or {}).items())
        self._requirements = equal + match_expressions

    def __call__(self, endpoints: Endpoints) -> Mask:
        return endpoints.derive(("scorers", "selector", self._requirements), self._matches)

    def _matches(self, records: Sequence[Endpoint]) -> Mask:
        met = [all(requirement.met_by(record.labels) for requirement in self._requirements) for record in records]
        return np.array(met, dtype=np.bool_)


class ByLabelSelector(LabelSelectorFilter):
    """The old name of label-selector-filter."""

    deprecated = "use label-selector-filter"


class ByLabel:
    """Keep the endpoints whose `label` has one of `valid_values`; with `allows_no_label` also those without it."""

    deprecated = "use label-selector-filter"

    def __init__(self, *, label: Name, valid_values: tuple[str, ...] = (), allows_no_label: bool = False) -> None:
        if not valid_values and not allows_no_label:
            raise ValueError("validValues is empty and allowsNoLabel is false, so no endpoint could pass; set one")
        self._label = label
        self._values = frozenset(valid_values)
        self._missing = allows_no_label

    def __call__(self, endpoints: Endpoints) -> Mask:
        return endpoints.label_in(self._label, self._values, missing=self._missing)


def header_label_affinity_scorer(
    request: Request, endpoints: Endpoints, *, header_name: Name, label_key: Name
) -> Scores:
    """Prefer (1) the endpoints whose label `label_key` equals the value of the request header, others get 0."""
    wanted = request.header(header_name.lower())
    if not wanted:
        return np.zeros(len(endpoints))
    same: Mask = label_column(endpoints, label_key) == wanted
    return same.astype(np.float64)


header_label_affinity_scorer.alpha = True  # type: ignore[attr-defined]  # a function takes attributes; its type does not


def label_column(endpoints: Endpoints, label: str) -> npt.NDArray[Any]:  # a string array of whatever width
    """The value of `label` for each row, "" where it is missing."""

    def compute(records: Sequence[Endpoint]) -> npt.NDArray[Any]:
        return np.array([record.labels.get(label, "") for record in records], dtype=np.str_)

    return endpoints.derive(("scorers", "label", label), compute)
