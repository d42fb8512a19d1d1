"""How a flag's text becomes a value: one Kind each, with the rule it states when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from epp.units import duration, quantity

Item = TypeVar("Item")
MOST_PROCESSES = 64


@dataclass(frozen=True, slots=True)
class Kind:
    """How the text of one sort of flag is read; `parse` raises ValueError."""

    word: str
    """What `--help` calls it; "" = a switch, which takes a value only after `=`."""
    parse: Callable[[str], Any]  # each kind gives its own type, the one its fields are annotated with
    rule: str
    example: str
    joins: bool = False
    """A list: repeated flags add up, as in Go, instead of the last one winning."""


@dataclass(frozen=True, slots=True)
class Section:
    """Marks the first flag of a section of `--help`."""

    title: str


def switch(text: str) -> bool:
    if text.lower() in {"true", "t", "1"}:
        return True
    if text.lower() in {"false", "f", "0"}:
        return False
    raise ValueError(text)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise ValueError(text)
    return number


def count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_PROCESSES:
        raise ValueError(text)
    return number


def each(parse: Callable[[str], Item]) -> Callable[[str], tuple[Item, ...]]:
    """Reads a list by commas: order kept, doubles dropped; a ValueError holds the part that is wrong."""

    def parse_all(text: str) -> tuple[Item, ...]:
        found: dict[Item, None] = {}
        for part in filter(None, map(str.strip, text.split(","))):
            try:
                found[parse(part)] = None
            except ValueError:
                raise ValueError(part) from None
        return tuple(found)

    return parse_all


def positive(text: str) -> float:
    seconds = duration(text)
    if seconds <= 0:
        raise ValueError(text)
    return seconds


def message_size(text: str) -> int:
    """As `quantity`; "" is 0, which means the transport's own default."""
    return quantity(text) if text else 0


def share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


def cores(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1024:
        raise ValueError(text)
    return number


ZAP_LEVELS = {"panic": -1, "error": -1, "warn": 1, "warning": 1, "info": 2, "debug": 4, "trace": 5}


def zap_level(text: str) -> int:
    """The verbosity a zap level name or number stands for; -1 = errors only."""
    name = text.lower()
    return ZAP_LEVELS[name] if name in ZAP_LEVELS else max(0, int(name))


# Go's names of the cipher suites up to TLS 1.2 that OpenSSL or BoringSSL still offers. RC4 and 3DES are gone from both.
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}
TLS13_CIPHERS = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})
"""Always on where TLS 1.3 is spoken: naming them changes nothing, in Go as here."""


def cipher(text: str) -> str:
    if text not in CIPHERS and text not in TLS13_CIPHERS:
        raise ValueError(text)
    return text


def one_of(*choices: str) -> Kind:
    """A flag with few values; "" leaves it unset."""

    def parse(text: str) -> str:
        if text and text not in choices:
            raise ValueError(text)
        return text

    return Kind("|".join(choices), parse, f"one of {', '.join(choices)}", choices[0])


TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")

SWITCH = Kind("", switch, "true, false, t, f, 1 or 0", "true")
TEXT = Kind("text", str, "any text", "name")
PORT = Kind("port", port, "a whole number from 0 to 65535", "9002")
Switch = Annotated[bool, SWITCH]
Text = Annotated[str, TEXT]
Port = Annotated[int, PORT]
Ports = Annotated[tuple[int, ...], Kind("ports", each(port), PORT.rule, "8000,8001", joins=True)]
Number = Annotated[int, Kind("int", int, "a whole number", "2")]
Count = Annotated[int, Kind("count", count, f"a whole number from 1 to {MOST_PROCESSES}", "2")]
_UNITS = "each number with a unit (ns, us, ms, s, m, h)"
Seconds = Annotated[float, Kind("duration", duration, f"a duration of 0 or more, {_UNITS}", "30s or 1m30s")]
SomeSeconds = Annotated[float, Kind("duration", positive, f"a duration above 0, {_UNITS}", "30s or 1m30s")]
_BYTES = "a Kubernetes quantity of bytes, 0 or more, below 2^63"
Bytes = Annotated[int, Kind("quantity", quantity, _BYTES, "32Mi, 25M or 10MiB")]
MessageSize = Annotated[int, Kind("quantity", message_size, _BYTES, "32Mi, 25M or 10MiB")]
Share = Annotated[float, Kind("share", share, "a number from 0 to 1", "0.5")]
Cores = Annotated[float, Kind("cores", cores, "a number above 0, 1024 at most", "0.1")]
ZapLevel = Annotated[int | None, Kind("level", zap_level, "error, info, debug, trace or a whole number", "debug")]
TlsVersion = Annotated[str, one_of(*TLS_VERSIONS)]
_SUITES = f"Go's name of a cipher suite: {', '.join(CIPHERS)}"
_SUITE = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
Ciphers = Annotated[tuple[str, ...], Kind("names", each(cipher), _SUITES, _SUITE, joins=True)]
Encoder = Annotated[str, one_of("json", "console")]
ResponsePhase = Annotated[Literal["full", "none"], one_of("full", "none")]
Transport = Annotated[Literal["grpcio", "h2"], one_of("grpcio", "h2")]
