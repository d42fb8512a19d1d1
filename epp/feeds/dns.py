"""Host names in the place of addresses: looked up, looked up again, and what to do when that fails."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass

AGAIN_S = 30.0
"""Between two look-ups of a name, and the longest wait after a failure (which starts at a second and doubles)."""
TIMEOUT_S = 5.0

Lookup = Callable[[str], Awaitable[list[str]]]
"""Host name → its addresses, best first; raises OSError or TimeoutError."""

log = logging.getLogger(__name__)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def ip_literal(text: str) -> str | None:
    """An IPv4 or IPv6 address, in brackets or not, in its shortest form; None if `text` is none."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(inner)
    except ValueError:
        return None
    bracketed_v4 = inner is not text and address.version == 4
    zoned = isinstance(address, ipaddress.IPv6Address) and address.scope_id
    return None if bracketed_v4 or zoned else str(address)


def is_host_name(text: str) -> bool:
    """True for a DNS name. One whose last label is a number is no name but a mistyped address."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


async def lookup(host: str) -> list[str]:
    """The addresses of `host`, in order."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(TIMEOUT_S):
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return in_order(str(where[0]) for *_, where in found)


def in_order(addresses: Iterable[str]) -> list[str]:
    """Each once, IPv4 first, then by number: so every picker takes the same one, whatever order its resolver gave."""
    distinct = {ipaddress.ip_address(address) for address in addresses}
    return [str(address) for address in sorted(distinct, key=lambda a: (a.version, int(a)))]


def next_lookup(now: float, failures: int) -> float:
    """When to look again after `failures` in a row."""
    return now + (min(AGAIN_S, 2.0 ** min(failures - 1, 16)) if failures else AGAIN_S)


@dataclass(slots=True)
class _Name:
    address: str | None = None
    due: float = float("-inf")
    failures: int = 0
    problem: str = ""


class Names:
    """The address of each host name in use: the first one found. A name that stops resolving keeps its last address."""

    def __init__(self, lookup: Lookup = lookup) -> None:
        self._lookup = lookup
        self._names: dict[str, _Name] = {}

    def __contains__(self, host: str) -> bool:
        return host in self._names

    def address(self, host: str) -> str | None:
        name = self._names.get(host)
        return name.address if name else None

    def problem(self, host: str) -> str:
        """Why the last look-up failed; empty if it did not."""
        name = self._names.get(host)
        return name.problem if name else ""

    def use(self, hosts: Collection[str]) -> None:
        """These names and no others, from now on."""
        self._names = {host: self._names.get(host) or _Name() for host in hosts}

    def next_due(self) -> float | None:
        return min((name.due for name in self._names.values()), default=None)

    async def refresh(self, now: float) -> None:
        """Look up what is due."""
        due = [host for host, name in self._names.items() if name.due <= now]
        for host, found in zip(due, await asyncio.gather(*map(self._try, due)), strict=True):
            if (name := self._names.get(host)) is not None:
                _take(host, name, found, now)

    async def _try(self, host: str) -> list[str] | str:
        """Its addresses, or why there are none."""
        try:
            return await self._lookup(host) or "it has no address"
        except TimeoutError:
            return f"no answer within {TIMEOUT_S:g} s"
        except (OSError, UnicodeError) as error:
            return str(error)


def _take(host: str, name: _Name, found: list[str] | str, now: float) -> None:
    if isinstance(found, str):
        name.failures += 1
        if name.failures == 1:
            log.warning("host name %s does not resolve: %s; %s", host, found, _consequence(name))
        name.problem = found
    else:
        if name.address not in {None, found[0]}:
            log.info("host name %s moved from %s to %s", host, name.address, found[0])
        name.address, name.failures, name.problem = found[0], 0, ""
    name.due = next_lookup(now, name.failures)


def _consequence(name: _Name) -> str:
    return f"keeping {name.address}" if name.address else "its endpoints are left out until it does"
