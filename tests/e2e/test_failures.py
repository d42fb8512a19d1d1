"""Engines and pickers that fail under load, behind a real Envoy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from . import processes
from .bootstrap import DESTINATION
from .chat import ask, ask_all, completion, events
from .conftest import FAST, Proxied, Town
from .envoy import Envoy
from .processes import Engine, chosen, endpoints_file, picker, settles

NOTICED_S = 1.0
"""From an engine's failure on, requests may meet it for so long."""


@pytest.fixture
def separate(tmp_path: Path) -> Iterator[list[Engine]]:
    """Three engines, each a process of its own."""
    with ExitStack() as stack:
        yield [stack.enter_context(processes.engines(tmp_path, 1, *FAST))[0] for _ in range(3)]


@contextmanager
def load(proxy: Envoy) -> Iterator[list[int]]:
    """Requests one after another from four clients until the block ends; their statuses so far. 0 = no answer."""
    statuses: list[int] = []
    stop = threading.Event()

    def client(number: int) -> None:
        sent = 0
        while not stop.is_set():
            sent += 1
            statuses.append(status_of(proxy, completion(f"{number} {sent}")))

    clients = [threading.Thread(target=client, args=(number,), name=f"client {number}") for number in range(4)]
    for thread in clients:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in clients:
            thread.join()


def status_of(proxy: Envoy, sent: bytes) -> int:
    try:
        return ask(proxy.port, sent, timeout_s=5).status
    except TimeoutError:
        return 0


def after_notice(proxy: Envoy, count: int) -> list[int]:
    """Statuses of `count` requests that follow a second of others."""
    end = time.monotonic() + NOTICED_S
    while time.monotonic() < end:
        ask_all(proxy.port, [completion(f"early {time.monotonic()} {n}") for n in range(4)])
    return [
        reply.status
        for start in range(0, count, 10)
        for reply in ask_all(proxy.port, [completion(f"late {start} {n}") for n in range(10)])
    ]


def test_a_dead_engine_gets_no_request_after_a_second(separate: list[Engine], proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in separate])
    with picker(tmp_path, endpoints) as chooser:
        proxy = proxied(chooser)
        assert {reply.status for reply in ask_all(proxy.port, [completion(str(n)) for n in range(20)])} == {200}
        separate[0].child.kill()
        statuses = after_notice(proxy, 200)
    assert statuses.count(200) >= 198


def test_an_engine_that_answers_500_at_once_gets_less_than_a_twentieth(
    town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints) as chooser:
        proxy = proxied(chooser)
        town.engines[0].configure(fault="error")
        try:
            statuses = after_notice(proxy, 200)
        finally:
            town.engines[0].configure(fault="none")
    assert set(statuses) <= {200, 500}
    assert statuses.count(500) < 10


def test_a_picker_restarted_under_load_costs_503_and_no_hang(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints) as first:
        proxy = proxied(first)
        ports = list(first.ports.values())
        with load(proxy) as statuses:
            assert settles(True, lambda: len(statuses) > 20)
            first.child.kill()
            assert settles(True, lambda: 503 in statuses)
            with picker(tmp_path, endpoints, ports=ports):
                served = len(statuses)
                assert settles(True, lambda: 200 in statuses[served:])
                assert settles({200}, lambda: set(statuses[-20:])) == {200}
    assert set(statuses) == {200, 503}


def test_a_picker_told_to_stop_lets_its_streams_end(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints) as chooser:
        proxy = proxied(chooser)
        replies = []
        story = threading.Thread(
            target=lambda: replies.append(ask(proxy.port, completion("long", stream=True, max_tokens=800)))
        )
        story.start()
        assert settles(1, lambda: chooser.metric("llm_d_epp_request_running")) == 1
        assert chooser.child.end() == 0
        story.join()
    assert (replies[0].status, replies[0].whole, events(replies[0])[-1]) == (200, True, b"[DONE]")


def test_engines_come_and_go_with_the_endpoints_file(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    one, other = (engine.address for engine in town.engines[:2])
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [one])
    with picker(tmp_path, endpoints) as chooser:
        proxy = proxied(chooser)

        def destinations() -> set[str]:
            """Where the last ten requests went."""
            replies = ask_all(proxy.port, [completion(f"{time.monotonic()} {n}") for n in range(10)])
            assert {reply.status for reply in replies} == {200}
            return {chosen(decision) for decision in chooser.decisions()[:10]}

        assert destinations() == {one}
        endpoints_file(endpoints, [one, other])
        assert settles({one, other}, destinations) == {one, other}
        endpoints_file(endpoints, [other])
        assert settles({other}, destinations) == {other}


def test_a_client_that_names_a_destination_is_not_obeyed(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)
    assert ask(proxy.port, completion("x", f"{DESTINATION}: 127.0.0.1:1")).status == 200
