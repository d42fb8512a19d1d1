"""Host names, with a resolver of our own and a clock that stands where the test puts it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from epp.feeds.dns import AGAIN_S, Names, in_order, ip_literal, is_host_name, lookup, next_lookup


class Zone:
    """A resolver: `addresses` holds what it knows; a name it does not know fails."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = addresses
        self.asked: list[str] = []

    async def __call__(self, host: str) -> list[str]:
        self.asked.append(host)
        if host not in self.addresses:
            raise socket.gaierror(-2, "Name or service not known")
        return self.addresses[host]


def refreshed(names: Names, *times: float, hosts: tuple[str, ...] = ("gpu",)) -> Names:
    names.use(hosts)
    for now in times:
        asyncio.run(names.refresh(now))
    return names


def test_the_first_address_is_the_names() -> None:
    assert refreshed(Names(Zone(gpu=["10.0.0.1", "10.0.0.2"])), 0).address("gpu") == "10.0.0.1"


def test_a_name_is_looked_up_again_when_it_is_due() -> None:
    zone = Zone(gpu=["10.0.0.1"])
    names = refreshed(Names(zone), 0)
    zone.addresses["gpu"] = ["10.0.0.9"]
    assert refreshed(names, AGAIN_S - 1).address("gpu") == "10.0.0.1"
    assert refreshed(names, AGAIN_S).address("gpu") == "10.0.0.9"
    assert zone.asked == ["gpu", "gpu"]


def test_a_name_that_stops_resolving_keeps_its_last_address(caplog: pytest.LogCaptureFixture) -> None:
    zone = Zone(gpu=["10.0.0.1"])
    names = refreshed(Names(zone), 0)
    del zone.addresses["gpu"]
    refreshed(names, 30, 31, 33)
    assert names.address("gpu") == "10.0.0.1"
    assert "not known" in names.problem("gpu")
    assert len(caplog.messages) == 1
    assert "keeping 10.0.0.1" in caplog.messages[0]


def test_a_name_that_never_resolved_has_no_address_and_is_tried_soon() -> None:
    zone = Zone()
    names = refreshed(Names(zone), 0)
    assert names.address("gpu") is None
    assert names.next_due() == 1
    zone.addresses["gpu"] = ["10.0.0.1"]
    assert refreshed(names, 1).address("gpu") == "10.0.0.1"
    assert names.problem("gpu") == ""


@pytest.mark.parametrize(("failures", "wait_s"), [(0, 30), (1, 1), (2, 2), (5, 16), (6, 30), (1000, 30)])
def test_failures_back_off_to_the_usual_interval(failures: int, wait_s: float) -> None:
    assert next_lookup(100, failures) == 100 + wait_s


def fails_with(error: Exception) -> Callable[[str], Any]:
    async def resolver(host: str) -> list[str]:
        raise error

    return resolver


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (TimeoutError(), "no answer within 5 s"),
        (socket.gaierror(-3, "Temporary failure"), "Temporary failure"),
        (UnicodeError("label too long"), "label too long"),
    ],
)
def test_whatever_a_resolver_raises_is_a_failure_of_that_name(error: Exception, problem: str) -> None:
    assert problem in refreshed(Names(fails_with(error)), 0).problem("gpu")


def test_a_name_without_addresses_is_a_failure() -> None:
    assert refreshed(Names(Zone(gpu=[])), 0).problem("gpu") == "it has no address"


def test_names_no_longer_used_are_forgotten() -> None:
    names = refreshed(Names(Zone(gpu=["10.0.0.1"], tpu=["10.0.0.2"])), 0, hosts=("gpu", "tpu"))
    names.use(["tpu"])
    assert "gpu" not in names
    assert names.address("gpu") is None
    assert names.address("tpu") == "10.0.0.2"


def test_nothing_is_due_without_names() -> None:
    assert refreshed(Names(Zone()), 0, hosts=()).next_due() is None


def test_addresses_come_sorted_whatever_order_the_resolver_gives() -> None:
    assert in_order(["fd00::1", "10.0.0.10", "10.0.0.9", "10.0.0.10"]) == ["10.0.0.9", "10.0.0.10", "fd00::1"]


def test_localhost_resolves_to_a_loopback_address() -> None:
    assert asyncio.run(lookup("localhost"))[0] in {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1", "10.0.0.1"), ("[::1]", "::1"), ("::0:1", "::1"), ("[10.0.0.1]", None), ("a", None), ("::1%lo", None)],
)
def test_an_address_is_told_from_a_name(text: str, address: str | None) -> None:
    assert ip_literal(text) == address


@pytest.mark.parametrize("text", ["gpu", "gpu-1.example.com", "a.b.", "1a", "3com.example", "my_host"])
def test_a_host_name_is_known_as_one(text: str) -> None:
    assert is_host_name(text)


@pytest.mark.parametrize("text", ["", ".", "10.0.0.256", "-a", "a-", "a..b", "a b", "a:80", "x" * 64, "a." * 127 + "a"])
def test_what_is_no_host_name_is_known_too(text: str) -> None:
    assert not is_host_name(text)
