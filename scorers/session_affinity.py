"""Send a session's requests to the endpoint that got the earlier ones.

Either the client carries the endpoint's name in a header that we set on each response, or a session id is remembered
here with the endpoint it went to.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct
from xxhash import xxh3_128_digest

from epp import Decision, Endpoint, Endpoints, Mask, Request, Scores

TOKEN_HEADER = "x-session-token"
ID_HEADER = "x-session-id"
SESSION_ID = frozenset({"session_id", "SessionIDDataKey"})
"""Names of the attribute that session-id-producer provides; others are the request's own attributes."""
MOST_SESSIONS = 100_000
"""Remembered at once, about 25 MB; beyond it the one unused for longest is forgotten."""
Name = Annotated[str, Meta(min_length=1)]


class HeaderConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where the client carries the endpoint's name."""

    header: Name = TOKEN_HEADER


class Source(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """One place to look for a session id."""

    header: str = ""
    attribute: str = ""
    producer: str = ""
    """Of the attribute; its name is enough here."""

    def __post_init__(self) -> None:
        if bool(self.header) == bool(self.attribute):
            raise ValueError("sources: each entry needs exactly one of header and attribute")


class SessionIdConfig(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where session ids come from and how long they are remembered."""

    sources: Annotated[tuple[Source, ...], Meta(min_length=1)] = (Source(header=ID_HEADER),)
    """The first that has a value counts."""
    eviction_ttl_seconds: Annotated[float, Meta(gt=0)] = 300.0
    """Since the session's last request to its endpoint."""
    eviction_sweep_seconds: Annotated[float, Meta(gt=0)] = 10.0
    """Without effect: sessions lie in the order of their end, so what has ended costs nothing to find."""


class Pins(Protocol):
    """Which endpoint a request's session is pinned to."""

    def mask(self, request: Request, endpoints: Endpoints, now: float, session_id: str) -> Mask:
        """True at the session's endpoint; nowhere without one."""

    def picked(self, request: Request, decision: Decision) -> None: ...

    def response_headers(
        self, request: Request, decision: Decision, headers: object, metadata: object
    ) -> Mapping[str, str] | None: ...

    def adopt(self, before: Pins) -> None:
        """Go on with the sessions of `before`, if it has any of our kind."""

    def state(self) -> Mapping[str, object]: ...


class SessionAffinity:
    """Prefer (as a scorer, 1 and 0) or keep only (as a filter) the endpoint that got the session's earlier requests.

    The filter keeps every candidate where the session has no endpoint among them.
    """

    alpha = True

    def __init__(
        self,
        *,
        strategy: Literal["encoded_endpoint_header", "session_id"] = "encoded_endpoint_header",
        profile_name: str = "",
        encoded_endpoint_header_config: HeaderConfig | None = None,
        session_id_config: SessionIdConfig | None = None,
    ) -> None:
        self._pins: Pins = (
            EncodedEndpoint(encoded_endpoint_header_config or HeaderConfig(), profile_name)
            if strategy == "encoded_endpoint_header"
            else Sessions(session_id_config or SessionIdConfig(), profile_name)
        )
        self.picked = self._pins.picked
        self.response_headers = self._pins.response_headers
        self.state = self._pins.state

    def score(self, request: Request, endpoints: Endpoints, now: float, session_id: str = "") -> Scores:
        return self._pins.mask(request, endpoints, now, session_id).astype(np.float64)

    def filter(self, request: Request, endpoints: Endpoints, now: float, session_id: str = "") -> Mask:
        mask = self._pins.mask(request, endpoints, now, session_id)
        return mask if mask.any() else np.ones_like(mask)

    def adopt(self, before: object) -> None:
        if isinstance(before, SessionAffinity):
            self._pins.adopt(before._pins)


class EncodedEndpoint:
    """Remembers nothing: the client sends back base64 of `namespace/name`, got with the response before."""

    def __init__(self, config: HeaderConfig, profile: str) -> None:
        self._header = config.header.lower()
        self._profile = profile

    def mask(self, request: Request, endpoints: Endpoints, now: float, session_id: str) -> Mask:
        try:
            key = b64decode(request.header(self._header), validate=True).decode()
        except (binascii.Error, ValueError):
            key = ""
        return at(endpoints, key)

    def picked(self, request: Request, decision: Decision) -> None:
        pass

    def response_headers(
        self, request: Request, decision: Decision, headers: object, metadata: object
    ) -> Mapping[str, str] | None:
        key = picked_key(decision, self._profile)
        return {self._header: b64encode(key.encode()).decode()} if key else None

    def adopt(self, before: Pins) -> None:
        pass

    def state(self) -> Mapping[str, object]:
        return {"strategy": "encoded_endpoint_header", "header": self._header}


@dataclass(slots=True)
class Asked:
    """The request last asked about, until it is picked for. Nothing comes between its scores and its pick."""

    request: Request
    session: bytes
    absent: bool
    """Its endpoint was not among the candidates."""


class Sessions:
    """Remembers where sessions went. The first pick pins a session; a pick elsewhere moves it only if its endpoint
    was not among the candidates."""

    def __init__(self, config: SessionIdConfig, profile: str) -> None:
        self._sources = config.sources
        self._ttl_s = config.eviction_ttl_seconds
        self._profile = profile
        self._pinned: OrderedDict[bytes, tuple[str, float]] = OrderedDict()
        """Session → (endpoint key, when it ends), in the order in which they end."""
        self._asked: Asked | None = None

    def __len__(self) -> int:
        return len(self._pinned)

    def mask(self, request: Request, endpoints: Endpoints, now: float, session_id: str) -> Mask:
        self._forget(now)
        session = self._session(request, session_id)
        key, _ = self._pinned.get(session, ("", 0.0))
        there = at(endpoints, key)
        absent = bool(key) and not there.any()
        if self._asked is not None and self._asked.request is request:
            absent |= self._asked.absent
        self._asked = Asked(request, session, absent)
        return there

    def picked(self, request: Request, decision: Decision) -> None:
        asked, self._asked = self._asked, None
        key = picked_key(decision, self._profile)
        if asked is None or asked.request is not request or not asked.session or not key:
            return
        before, _ = self._pinned.get(asked.session, (key, 0.0))
        if before == key or asked.absent:
            self._pinned[asked.session] = (key, decision.decided_at + self._ttl_s)
            self._pinned.move_to_end(asked.session)
            if len(self._pinned) > MOST_SESSIONS:
                self._pinned.popitem(last=False)

    def response_headers(self, request: Request, decision: Decision, headers: object, metadata: object) -> None:
        return None

    def adopt(self, before: Pins) -> None:
        """Sessions of another profile are pinned to endpoints that ours may never pick, so they are left."""
        if isinstance(before, Sessions) and before._profile == self._profile:
            self._pinned = before._pinned
            if longer_s := self._ttl_s - before._ttl_s:
                # All by as much, so that they stay in the order in which they end.
                shifted = ((session, (key, ends + longer_s)) for session, (key, ends) in self._pinned.items())
                self._pinned = OrderedDict(shifted)

    def state(self) -> Mapping[str, object]:
        return {"strategy": "session_id", "sessions": len(self), "most": MOST_SESSIONS, "ttlSeconds": self._ttl_s}

    def _session(self, request: Request, session_id: str) -> bytes:
        """A short stand-in for the session id, however long that is; b"" without one."""
        for source in self._sources:
            if source.header:
                found = request.header(source.header.lower())
            else:
                found = session_id if source.attribute in SESSION_ID else request.attributes.get(source.attribute, "")
            if found.strip():
                return xxh3_128_digest(found.strip().encode("utf-8", "surrogatepass"))
        return b""

    def _forget(self, now: float) -> None:
        while self._pinned:
            session, (_, ends) = next(iter(self._pinned.items()))
            if ends > now:
                return
            del self._pinned[session]


def at(endpoints: Endpoints, key: str) -> Mask:
    """True in the row of the endpoint `key`."""

    def compute(records: Sequence[Endpoint]) -> npt.NDArray[Any]:  # a string array of whatever width
        return np.array([record.key for record in records], dtype=np.str_)

    mask: Mask = endpoints.derive(("scorers", "key"), compute) == key
    return mask


def picked_key(decision: Decision, profile: str) -> str:
    """The key of the endpoint that a profile picked ("" = the primary one); "" if it picked none."""
    run = decision.runs.get(profile or decision.primary)
    return run.picked[0].key if run is not None and run.picked else ""
