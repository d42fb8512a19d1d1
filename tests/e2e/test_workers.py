"""`--workers 2` behind real Envoys: work is spread, and what dies takes only its own requests with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chat import ask, ask_all, completion, events
from .conftest import Proxied, Town
from .processes import NotStarted, Picker, endpoints_file, picker, settles

MADE = "llm_d_epp_worker_starts_total"


@pytest.fixture
def two(town: Town, tmp_path: Path) -> Iterator[Picker]:
    """A picker of a parent, a decider and two edges, that a test may hurt."""
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints, "--workers=2", "--drain-timeout=10s") as running:
        assert settles(2, lambda: running.metric(MADE, worker="edge-0") + running.metric(MADE, worker="edge-1")) == 2
        yield running


def children(running: Picker, kind: str) -> list[int]:
    """Process ids of the children of the parent that are this."""
    parent = running.child.process.pid
    ids = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    module = {"edge": b"epp.workers.child", "decider": b"epp.cli"}[kind]
    return [int(one) for one in ids if module in Path(f"/proc/{one}/cmdline").read_bytes()]


def shows_a_stream(running: Picker, edge: int) -> bool:
    return running.metric("llm_d_epp_worker_streams", worker=f"edge-{edge}") == 1


def connections(running: Picker) -> list[float]:
    return sorted(running.metric("llm_d_epp_worker_connections", worker=f"edge-{number}") for number in range(2))


def idle(running: Picker) -> bool:
    """Nothing is charged, and no stream is open."""
    names = ("llm_d_epp_inflight_requests", "llm_d_epp_request_running", "llm_d_epp_worker_streams")
    return [running.metric(name) for name in names] == [0, 0, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_metrics_speak_for_all_edges(threads: int, two: Picker, proxied: Proxied) -> None:
    proxy = proxied(two, threads=threads)
    replies = ask_all(proxy.port, [completion(f"story {n}", stream=True, max_tokens=20) for n in range(40)])
    assert {(reply.status, events(reply)[-1]) for reply in replies} == {(200, b"[DONE]")}
    assert settles(True, lambda: idle(two))
    assert two.metric("llm_d_epp_request_total") == 40
    assert two.metric("llm_d_epp_request_duration_seconds_count") == 40
    assert two.metric("llm_d_epp_request_streaming_itl_seconds_count") > 0
    assert two.decisions()
    assert json.loads(two.get("/debug/endpoints"))


def test_connections_go_to_the_edge_that_has_fewest(two: Picker, proxied: Proxied) -> None:
    """One thread of Envoy keeps one connection, until it has 256 streams open."""
    proxy = proxied(two, threads=1)
    assert ask(proxy.port, completion()).status == 200
    replies = ask_all(proxy.port, [completion(f"{n}", stream=True, max_tokens=900) for n in range(300)])
    assert {(reply.status, b"" if reply.status == 200 else reply.body) for reply in replies} == {(200, b"")}
    assert settles([1, 1], lambda: connections(two)) == [1, 1]


def test_an_edge_that_dies_loses_its_own_streams_and_is_started_again(two: Picker, proxied: Proxied) -> None:
    proxy = proxied(two, threads=1)

    async def cut() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(completion("a long story", stream=True, max_tokens=900))
        await reader.readuntil(b"data: ")
        assert settles(1, lambda: two.metric("llm_d_epp_worker_streams")) == 1
        [busy] = [number for number in range(2) if shows_a_stream(two, number)]
        os.kill(children(two, "edge")[busy], signal.SIGKILL)
        rest = await reader.read()
        writer.close()
        return rest

    assert b"[DONE]" not in asyncio.run(cut())
    assert settles([1, 2], lambda: sorted(two.metric(MADE, worker=f"edge-{n}") for n in range(2))) == [1, 2]
    assert settles(200, lambda: ask(proxy.port, completion()).status) == 200
    assert settles(True, lambda: idle(two))


def test_without_its_decider_the_picker_answers_503_until_there_is_another(two: Picker, proxied: Proxied) -> None:
    proxy = proxied(two, threads=1)
    assert ask(proxy.port, completion()).status == 200
    [decider] = children(two, "decider")
    os.kill(decider, signal.SIGKILL)
    assert settles(503, lambda: ask(proxy.port, completion()).status) == 503
    assert settles(200, lambda: ask(proxy.port, completion()).status, within_s=20.0) == 200
    assert children(two, "decider") != [decider]


def test_where_no_edge_can_serve_clients_hear_so(two: Picker, proxied: Proxied, tmp_path: Path) -> None:
    """An edge serves once a decider has told it how to read; a decider may be unable to start."""
    proxy = proxied(two, threads=1)
    config = tmp_path / "config.yaml"
    good = config.read_text()
    config.write_text("{")
    for child in (*children(two, "decider"), *children(two, "edge")):
        os.kill(child, signal.SIGKILL)
    two.child.line("no edge serves: connections are closed until one does")
    assert {ask(proxy.port, completion()).status for _ in range(3)} <= {500, 503, 504}
    config.write_text(good)
    assert settles(200, lambda: ask(proxy.port, completion()).status, within_s=20.0) == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_drain_lets_open_streams_end_and_leaves_no_process(number: int, two: Picker, proxied: Proxied) -> None:
    proxy = proxied(two)
    ids = [*children(two, "edge"), *children(two, "decider")]

    async def drained() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(completion("a story", stream=True, max_tokens=400))
        head = await reader.readuntil(b"data: ")
        two.child.process.send_signal(number)
        rest = await reader.read()
        writer.close()
        return head + rest

    assert b"[DONE]" in asyncio.run(drained())
    assert two.child.process.wait(30) == 0
    assert [one for one in ids if Path(f"/proc/{one}").exists()] == []


def test_what_can_not_start_ends_the_parent_too(town: Town, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with (
        pytest.raises(NotStarted, match="exit code 1"),
        picker(tmp_path, endpoints, "--workers=2", "--secure-serving=true", f"--cert-path={tmp_path}"),
    ):
        pass


def test_a_metrics_port_in_use_ends_the_parent_too(town: Town, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with (
        socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken,
        pytest.raises(NotStarted, match=r"exit code 1[^0-9][\s\S]*\(--metrics-port\): Address already in use"),
        picker(tmp_path, endpoints, "--workers=2", f"--metrics-port={taken.getsockname()[1]}"),
    ):
        pass


def test_a_decider_that_somebody_else_tells_to_stop_is_followed_by_another(two: Picker, proxied: Proxied) -> None:
    proxy = proxied(two, threads=1)
    assert ask(proxy.port, completion()).status == 200
    [decider] = children(two, "decider")
    os.kill(decider, signal.SIGTERM)
    assert settles(False, lambda: Path(f"/proc/{decider}").exists()) is False
    assert settles(200, lambda: ask(proxy.port, completion()).status, within_s=20.0) == 200
    assert two.child.end() == 0
