"""The model servers as the picker sees them: records, readings and columns. Depends on numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.float64]
"""One finite number per endpoint, shape (n,)."""
Scores = npt.NDArray[np.float64]
"""One vote per candidate, shape (n,), in [0, 1], higher is better."""
Mask = npt.NDArray[np.bool_]
"""One yes or no per endpoint, shape (n,)."""
Rows = npt.NDArray[np.intp]
"""Row numbers, shape (k,), best first."""

MOST_COUNTED = 1e15
"""No engine counts so far: a larger number is none. So sums and products of what is read stay finite."""
COLUMNS = (
    "waiting",
    "running",
    "kv_usage",
    "inflight",
    "inflight_tokens",
    "block_tokens",
    "num_blocks",
    "max_loras",
    "seats",
    "read_at",
    "interval_s",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One model server address: a (pod, port) pair in Kubernetes, an entry of the endpoints file elsewhere."""

    name: str
    address: str
    """IP literal, unbracketed."""
    port: int
    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    metrics_address: str = ""
    """host:port to scrape; "" = address and port."""
    rank: int = 0
    key: str = field(init=False, repr=False, compare=False)
    """Identity for everything that remembers: `namespace/name`."""
    host_port: str = field(init=False, repr=False, compare=False)
    """`ip:port`, IPv6 in brackets: the value of the routing header."""

    def __post_init__(self) -> None:
        host = f"[{self.address}]" if ":" in self.address else self.address
        object.__setattr__(self, "key", f"{self.namespace}/{self.name}")
        object.__setattr__(self, "host_port", f"{host}:{self.port}")

    def __reduce__(self) -> tuple[type[Endpoint], tuple[object, ...]]:
        # Compiled, it has no state that `copy` and `pickle` could set.
        return Endpoint, (
            self.name, self.address, self.port, self.namespace, self.labels, self.metrics_address, self.rank,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What a discovery feed saw: endpoints that are there now (new or altered) and keys that are gone."""

    present: tuple[Endpoint, ...] = ()
    gone: tuple[str, ...] = ()


@dataclass(slots=True)
class Reading:
    """What one look at an engine told. None = not told: the pool keeps what it had."""

    waiting: float | None = None
    running: float | None = None
    kv_usage: float | None = None
    """0 … 1."""
    block_tokens: float | None = None
    num_blocks: float | None = None
    max_loras: float | None = None
    running_loras: frozenset[str] | None = None
    waiting_loras: frozenset[str] | None = None
    attributes: Mapping[str, float] = field(default_factory=dict)
    """Custom metrics by attribute key."""


class Endpoints:
    """The endpoints as columns (struct of arrays), n rows; read-only.

    `waiting` (requests queued in the engine), `running` and `kv_usage` are the last reading corrected by what was sent
    and finished since; `inflight` and `inflight_tokens` are counted here and always exact. Columns are always finite:
    where no fresh reading exists they hold the mean of the fresh ones (0 if none) and `known` says so.
    """

    __slots__ = (
        "_attributes",
        "_columns",
        "_derived",
        "_known",
        "_loras",
        "_parent",
        "_row_of",
        "_rows",
        "now",
        "records",
    )

    def __init__(
        self,
        records: tuple[Endpoint, ...],
        *,
        columns: dict[str, Column],
        known: Mask,
        loras: Sequence[tuple[frozenset[str], frozenset[str]]],
        attributes: Mapping[str, tuple[Column, Mask]],
        derived: dict[Hashable, npt.NDArray[Any]],  # any dtype: each caller of derive() names its own
        now: float,
        rows: Mapping[str, int] | None = None,
    ) -> None:
        self.records = records
        self._row_of = rows
        self.now = now
        self._columns = columns
        self._known = known
        self._loras = loras
        self._attributes = attributes
        self._derived = derived
        self._parent: Endpoints | None = None
        self._rows: Rows | None = None

    def __len__(self) -> int:
        return len(self.records)

    @property
    def rows(self) -> Mapping[str, int]:
        """Row of each endpoint by its key `namespace/name`."""
        if self._row_of is None:
            self._row_of = {record.key: row for row, record in enumerate(self.records)}
        return self._row_of

    def take(self, rows: Rows) -> Endpoints:
        """The same columns over `rows` only, sliced when first read."""
        records = self.records
        view = Endpoints(
            tuple([records[row] for row in rows.tolist()]),
            columns={},
            known=self._known[rows],
            loras=(),
            attributes={},
            derived={},
            now=self.now,
        )
        view._parent = self
        view._rows = rows
        return view

    def column(self, name: str) -> Column:
        """A column by its name, one of COLUMNS. Raises AttributeError for another, as a property would."""
        found = self._columns.get(name)
        if found is None:
            if self._parent is None:
                raise AttributeError(f"no column named {name!r}; have: {', '.join(COLUMNS)}")
            found = self._parent.column(name)[self._rows]
            found.flags.writeable = False
            self._columns[name] = found
        return found

    @property
    def waiting(self) -> Column:
        """Requests queued in the engine."""
        return self.column("waiting")

    @property
    def running(self) -> Column:
        """Requests the engine is working on."""
        return self.column("running")

    @property
    def kv_usage(self) -> Column:
        """Share of KV-cache blocks in use, 0 … 1."""
        return self.column("kv_usage")

    @property
    def inflight(self) -> Column:
        """Requests sent there by this picker and not finished."""
        return self.column("inflight")

    @property
    def inflight_tokens(self) -> Column:
        """Prompt tokens of those requests that are still to be computed, as estimated at the pick."""
        return self.column("inflight_tokens")

    @property
    def block_tokens(self) -> Column:
        """Tokens in a KV-cache block; 0 = unknown."""
        return self.column("block_tokens")

    @property
    def num_blocks(self) -> Column:
        """KV-cache blocks of the engine; 0 = unknown."""
        return self.column("num_blocks")

    @property
    def max_loras(self) -> Column:
        """LoRA adapters that fit at once; 0 = unknown or none."""
        return self.column("max_loras")

    @property
    def seats(self) -> Column:
        """Requests the engine takes at once before they queue in it, as learned from its readings; 0 = never read."""
        return self.column("seats")

    @property
    def age_s(self) -> Column:
        """Seconds since the last reading; very large where there was none."""
        return self.now - self.column("read_at")

    @property
    def known(self) -> Mask:
        """True where the load columns rest on a fresh reading."""
        return self._known

    def fresh(self, threshold_s: float) -> Mask:
        """True where the reading is younger than max(`threshold_s`, 3 × the endpoint's scrape interval)."""
        limit: Column = np.maximum(threshold_s, 3.0 * self.column("interval_s"))
        fresh: Mask = self.age_s <= limit
        return fresh

    @property
    def names(self) -> tuple[str, ...]:
        """`namespace/name` of each row: the key for anything remembered between requests."""
        return tuple([record.key for record in self.records])

    def derive(self, key: Hashable, compute: Callable[[Sequence[Endpoint]], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """A column that depends on the records alone (labels, addresses), computed once per table version.

        `compute` gets all records and returns shape (n,); `key` must tell apart whatever it depends on besides them.
        """
        found = self._derived.get(key)
        if found is None:
            parent = self._parent
            found = compute(self.records) if parent is None else parent.derive(key, compute)[self._rows]
            self._derived[key] = found
        return found

    def label_in(self, label: str, values: frozenset[str], *, missing: bool = False) -> Mask:
        """True where `label` has one of `values`; `missing` is the answer for endpoints without it."""

        def compute(records: Sequence[Endpoint]) -> Mask:
            return np.array(
                [r.labels[label] in values if label in r.labels else missing for r in records], dtype=np.bool_
            )

        return self.derive(("label_in", label, values, missing), compute)

    def attribute(self, key: str) -> tuple[Column, Mask]:
        """A custom metric and where it is present (0 elsewhere)."""
        if self._parent is not None:
            values, present = self._parent.attribute(key)
            return values[self._rows], present[self._rows]
        if key in self._attributes:
            return self._attributes[key]
        return np.zeros(len(self)), np.zeros(len(self), dtype=np.bool_)

    def loras(self) -> Sequence[tuple[frozenset[str], frozenset[str]]]:
        """(running, waiting) LoRA adapter names of each row."""
        if self._parent is not None:
            every = self._parent.loras()
            return [every[row] for row in (() if self._rows is None else self._rows.tolist())]
        return self._loras
