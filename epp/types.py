"""The nouns of the picker: what a plug-in reads and what a decision says. Depends on numpy alone."""

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

COLUMNS = (
    "waiting",
    "running",
    "kv_usage",
    "inflight",
    "inflight_tokens",
    "block_tokens",
    "num_blocks",
    "max_loras",
    "read_at",
    "interval_s",
)


class Refused(Exception):
    """A request that gets an answer instead of an endpoint.

    `status` is the HTTP status, `code` the word that opens the body text, `reason` the value of
    x-llm-d-request-dropped-reason ("" for none), `by` the plug-in or stage that refused.
    """

    def __init__(self, status: int, message: str, reason: str = "", by: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.by = by

    @property
    def code(self) -> str:
        return CODES.get(self.status, "Internal")


CODES = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    412: "PreconditionFailed",
    413: "PayloadTooLarge",
    429: "ResourceExhausted",
    500: "Internal",
    503: "ServiceUnavailable",
}


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

    @property
    def key(self) -> str:
        """Identity for everything that remembers: `namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def host_port(self) -> str:
        """`ip:port`, IPv6 in brackets: the value of the routing header."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


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

    `waiting` (requests queued in the engine) and `running` are the last reading corrected by what was sent and
    finished since; `inflight` and `inflight_tokens` are counted here and always exact. Columns are always finite: where
    no fresh reading exists they hold the mean of the fresh ones (0 if none) and `known` says so.
    """

    __slots__ = ("_attributes", "_columns", "_derived", "_known", "_loras", "_parent", "_rows", "now", "records")

    def __init__(
        self,
        records: tuple[Endpoint, ...],
        columns: dict[str, Column],
        known: Mask,
        loras: Sequence[tuple[frozenset[str], frozenset[str]]],
        attributes: Mapping[str, tuple[Column, Mask]],
        derived: dict[Hashable, npt.NDArray[Any]],  # any dtype: each caller of derive() names its own
        now: float,
    ) -> None:
        self.records = records
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

    def take(self, rows: Rows) -> Endpoints:
        """The same columns over `rows` only, sliced when first read."""
        records = self.records
        view = Endpoints(
            tuple([records[row] for row in rows.tolist()]), {}, self._known[rows], (), {}, {}, self.now
        )
        view._parent = self
        view._rows = rows
        return view

    def column(self, name: str) -> Column:
        """A column by its name; one of COLUMNS."""
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

    def derive(
        self, key: Hashable, compute: Callable[[Sequence[Endpoint]], npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """A column that depends on the records alone (labels, addresses), computed once per table version.

        `compute` gets all records and returns shape (n,); `key` must tell apart whatever it depends on besides them.
        """
        found = self._derived.get(key)
        if found is None:
            if self._parent is not None:
                found = self._parent.derive(key, compute)[self._rows]
            else:
                found = compute(self.records)
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


@dataclass(frozen=True, slots=True)
class Media:
    """An image, video or audio part of a prompt."""

    kind: str
    """image, video or audio."""
    content: str
    """URL, data URL or base64 data, as sent."""


@dataclass(slots=True)
class Prompt:
    """One prompt, in order: text as UTF-8 bytes and media; or token ids as little-endian uint32 bytes."""

    parts: list[bytes | Media] = field(default_factory=list)
    token_ids: bytes | None = None


@dataclass(slots=True, eq=False)
class Request:
    """One inference request as plug-ins see it. Header names are lower-case."""

    id: str = ""
    path: str = "/v1/completions"
    model: str = ""
    """What the engine will be asked for, after rewriting."""
    incoming_model: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    prompts: Sequence[Prompt] = ()
    """Empty once the answer is sent, and for bodies no parser understands."""
    body_bytes: int = 0
    stream: bool = False
    max_output_tokens: int | None = None
    cache_salt: str = ""
    objective: str = ""
    priority: int = 0
    """Below 0 = sheddable."""
    fairness_id: str = ""
    slo_ttft_ms: float | None = None
    slo_tpot_ms: float | None = None
    received_at: float = 0.0
    """Seconds, on the clock that `now` uses."""
    attributes: dict[str, str] = field(default_factory=dict)
    """What plug-ins' `arrived` returned."""

    def header(self, name: str) -> str:
        """The last value of a header, "" if absent."""
        values = self.headers.get(name)
        return values[-1] if values else ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts an engine reported. None = not told."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one filter (or `subset`, `cooling`) left out: the keys of the endpoints it removed."""

    by: str
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vote:
    """One scorer's votes over the candidates of a run, before weighting, shape (n,)."""

    by: str
    weight: float
    scores: Scores


@dataclass(frozen=True, slots=True)
class Flaw:
    """A plug-in's result that broke the contract and what was done about it."""

    by: str
    rule: str
    """exception, shape, range, nan, suspended, timeout or rows."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds one plug-in took in one place."""

    by: str
    place: str
    """filter, signal, scorer, picker, profile_handler, screener or admitter."""
    seconds: float


@dataclass(slots=True)
class Run:
    """What one profile came to: who was left, who voted how, who was picked."""

    profile: str
    candidates: tuple[Endpoint, ...] = ()
    """After the filters, n of them, in the order of every vote."""
    steps: list[Step] = field(default_factory=list)
    votes: list[Vote] = field(default_factory=list)
    totals: Scores = field(default_factory=lambda: np.zeros(0))
    """Weighted sums, shape (n,)."""
    picked: tuple[Endpoint, ...] = ()
    """Best first; empty if the run refused."""
    picked_rows: tuple[int, ...] = ()
    """Their rows in the table the request was decided on."""
    refused: Refused | None = None

    @property
    def margin(self) -> float:
        """Lead of the highest total over the next one; 0 with fewer than two candidates."""
        if len(self.totals) < 2:
            return 0.0
        second, first = np.partition(self.totals, -2)[-2:]
        return float(first - second)


@dataclass(slots=True)
class Decision:
    """Why a request goes where it goes. `runs` holds every profile that ran; `primary` names the one that counts."""

    request_id: str
    model: str
    decided_at: float
    table_size: int
    primary: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    """What left endpoints out before any profile ran: subset hint, cooling, screeners."""
    signals: dict[str, Any] = field(default_factory=dict)  # each signal has its own type
    """What each signal said, by name; columns over the whole table. Dropped when the answer is sent."""
    flaws: list[Flaw] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks a reader of the decision needs: a fallback taken, a probe sent."""

    @property
    def run(self) -> Run:
        """The primary run."""
        return self.runs[self.primary]

    @property
    def picked(self) -> tuple[Endpoint, ...]:
        return self.runs[self.primary].picked if self.primary in self.runs else ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended."""

    usage: Usage | None
    status: int
    """HTTP status the engine answered with; 0 if none was seen."""
    cause: str
    """natural, client-disconnect, error or evicted."""
    ttft_s: float | None
    duration_s: float
