"""The endpoints file, from text to records. Pure.

YAML or JSON: a list `endpoints` of {name, namespace, address, port, labels, metricsHost or metricsAddress, load}. Other
keys are ignored, as the llm-d router does; unlike there a port may be a number and an address IPv6 or a host name.
`load` is for trying out decisions without a live engine; serving ignores it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import yaml

from epp.feeds import FeedError
from epp.feeds.dns import ip_literal, is_host_name
from epp.types import Endpoint

MAX_FILE_BYTES = 1024 * 1024
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, ArithmeticError)
"""What PyYAML raises: its own error, and whatever Python does where a value does not fit its tag (`!!bool maybe`)."""
Count = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to take an endpoint's load to be; None = unknown."""

    waiting: Count | None = None
    running: Count | None = None
    kv_usage: Share | None = None
    inflight: Count | None = None
    loras: tuple[str, ...] = ()
    """LoRA adapters running there."""
    failing: bool = False
    """It failed its last requests."""


class _Entry(msgspec.Struct, frozen=True, rename="camel"):
    """One element of `endpoints` as written; its rules are in `_endpoint`."""

    name: str
    address: str
    port: int | str
    namespace: str = "default"
    labels: dict[str, str] | None = None
    metrics_host: str = ""
    metrics_address: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one entry."""

    where: str
    rule: str
    key: str = ""
    """`namespace/name` of the entry, if that much could be read."""

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as far as it can be used. `address` of an endpoint may still be a host name here."""

    endpoints: tuple[Endpoint, ...] = ()
    loads: dict[str, Load] = field(default_factory=dict)
    """By endpoint key, for the entries that tell one."""
    errors: tuple[Problem, ...] = ()
    """Entries left out."""
    load_errors: tuple[Problem, ...] = ()
    """Entries whose `load` can't be used; their endpoints are in `endpoints` all the same."""
    warnings: tuple[Problem, ...] = ()

    @property
    def host_names(self) -> frozenset[str]:
        return frozenset(e.address for e in self.endpoints if ip_literal(e.address) is None)


def read_endpoints(text: str | bytes) -> Loaded:
    """The entries of an endpoints file; FeedError if it is no such file at all (so also while it is half written)."""
    endpoints: dict[str, Endpoint] = {}
    loads: dict[str, Load] = {}
    errors, load_errors, warnings = [], [], []
    for where, raw in _entries(text):
        try:
            endpoint = _endpoint(raw)
        except (ValueError, msgspec.ValidationError) as error:
            errors.append(Problem(where, _plain(error), _key(raw)))
            continue
        if endpoints.pop(endpoint.key, None):
            loads.pop(endpoint.key, None)
            warnings.append(Problem(where, f"{endpoint.key} is there twice; the last entry counts", endpoint.key))
        endpoints[endpoint.key] = endpoint
        try:
            loads |= _load(endpoint.key, raw)
        except msgspec.ValidationError as error:
            load_errors.append(Problem(f"{where}.load", _plain(error), endpoint.key))
    return Loaded(tuple(endpoints.values()), loads, tuple(errors), tuple(load_errors), tuple(warnings))


def _plain(error: Exception) -> str:
    """What the text of a decoding error lacks: the remedy."""
    text = str(error)
    return f"{text}; put it in quotes" if text.startswith("Expected `str`") else text


def _entries(text: str | bytes) -> Iterator[tuple[str, dict[str, Any]]]:  # whatever stands in the file
    document = _document(text.encode() if isinstance(text, str) else text)
    entries = document.get("endpoints") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise FeedError("there is no list named endpoints; begin with `endpoints:` and one `- name: …` for each")
    for number, entry in enumerate(entries):
        raw = entry if isinstance(entry, dict) else {}
        name = raw.get("name")
        yield f"endpoints[{number}]" + (f" ({name})" if isinstance(name, str) else ""), raw


def _document(raw: bytes) -> object:
    if len(raw) > MAX_FILE_BYTES:
        raise FeedError(f"the file has more than {MAX_FILE_BYTES} bytes; split the pool")
    if not raw.strip():
        raise FeedError("the file is empty; write `endpoints: []` for none")
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # not JSON; YAML says below what is wrong
    try:
        return yaml.load(raw, Loader=yaml.CSafeLoader)
    except NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise FeedError(f"{where}not YAML: {getattr(error, 'problem', None) or error}") from None


def _endpoint(raw: dict[str, Any]) -> Endpoint:  # one entry as written
    entry = msgspec.convert(raw, _Entry)
    if not entry.name or not entry.namespace:
        raise ValueError("name and namespace must not be empty")
    if entry.metrics_host and entry.metrics_address:
        raise ValueError("metricsHost and metricsAddress mean the same; give one")
    port = _port(entry.port)
    metrics = entry.metrics_host or entry.metrics_address
    return Endpoint(
        entry.name,
        _host(entry.address),
        port,
        entry.namespace,
        entry.labels or {},
        _host_port(metrics, port) if metrics else "",
    )


def _load(key: str, raw: dict[str, Any]) -> dict[str, Load]:  # one entry as written
    return {key: msgspec.convert(raw["load"], Load)} if raw.get("load") is not None else {}


def _key(raw: dict[str, Any]) -> str:  # one entry as written
    name, namespace = raw.get("name"), raw.get("namespace", "default")
    return f"{namespace}/{name}" if isinstance(name, str) and isinstance(namespace, str) else ""


def _port(value: int | str) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        raise ValueError(f"port {value!r} is none; give the port the engine listens on, 1 … 65535")
    return int(text)


def _host(text: str) -> str:
    address = ip_literal(text)
    if address is None and not is_host_name(text):
        raise ValueError(f"address {text!r} is neither an IPv4 nor an IPv6 address nor a host name")
    return address or text


def _host_port(text: str, default_port: int) -> str:
    """`host:port` from a host with or without a port."""
    host, colon, port = text.rpartition(":")
    if ip_literal(text) or not colon:
        host, port = text, str(default_port)
    host = _host(host)
    return f"[{host}]:{_port(port)}" if ":" in host else f"{host}:{_port(port)}"
