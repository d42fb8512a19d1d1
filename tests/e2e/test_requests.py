"""Requests through a real Envoy, the picker and simulated engines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from . import upstream
from .bootstrap import DESTINATION
from .chat import JSON_TYPE, ask, ask_all, body, completion, events
from .client import http2_post, request
from .conftest import Proxied, Town
from .envoy import Envoy
from .processes import CONFIG, PARSERS, chosen, endpoints_file, picker, settles

MODES: dict[str, dict[str, Any]] = {
    "full duplex": {},
    "buffered": {"request_body": "BUFFERED", "response_body": "BUFFERED", "buffer_bytes": 8 << 20},
    "buffered, partial": {"request_body": "BUFFERED_PARTIAL", "response_body": "BUFFERED_PARTIAL"},
    "streamed": {"request_body": "STREAMED", "response_body": "STREAMED"},
    "streamed early": {"request_body": "STREAMED", "response_body": "STREAMED", "send_body_early": True},
    "no bodies": {"request_body": "NONE", "response_body": "NONE"},
    "full duplex request, no response body": {"response_body": "NONE"},
    "buffered request, streamed response": {"request_body": "BUFFERED", "response_body": "STREAMED"},
}
each_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES.keys())
GET = request("GET", "/v1/models")


def troubles(proxy: Envoy) -> dict[str, int]:
    """What Envoy counted against the picker."""
    names = ("spurious_msgs_received", "streams_failed", "message_timeouts", "rejected_header_mutations")
    return {name: count for name, count in proxy.ext_proc().items() if name in names and count}


@each_mode
def test_every_mode_serves_every_kind_of_request(mode: dict[str, Any], town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, **mode)
    plain = ask(proxy.port, completion())
    streamed = ask(proxy.port, completion(stream=True))
    models = ask(proxy.port, GET)
    assert (plain.status, json.loads(plain.body)["usage"]["completion_tokens"]) == (200, 4)
    assert (streamed.status, events(streamed)[-1]) == (200, b"[DONE]")
    assert (models.status, json.loads(models.body)["data"][0]["id"]) == (200, "tiny")
    assert troubles(proxy) == {}


LONG_ENOUGH = {name: mode for name, mode in MODES.items() if name != "buffered, partial"}


@pytest.mark.parametrize("mode", LONG_ENOUGH.values(), ids=LONG_ENOUGH.keys())
def test_a_body_of_3_mb_arrives(mode: dict[str, Any], town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, **{"buffer_bytes": 8 << 20} | mode)
    reply = ask(proxy.port, completion(metadata={"padding": "x" * 3_000_000}))
    assert (reply.status, troubles(proxy)) == (200, {})


def test_a_truncated_body_is_routed_all_the_same(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, **MODES["buffered, partial"])
    reply = ask(proxy.port, completion(metadata={"padding": "x" * 300_000}))
    assert (reply.status, troubles(proxy)) == (200, {})


@pytest.mark.parametrize("destination", ["original_dst", "override_host"])
def test_the_request_arrives_where_the_decision_says(destination: str, town: Town, proxied: Proxied) -> None:
    addresses = tuple(engine.address for engine in town.engines)
    proxy = proxied(town.picker, destination=destination, endpoints=addresses)
    before = {engine.address: engine.requests() for engine in town.engines}
    assert ask(proxy.port, completion("where to")).status == 200
    after = {engine.address: engine.requests() for engine in town.engines}
    assert [address for address in after if after[address] > before[address]] == [picked(town)]


def picked(town: Town) -> str:
    """host:port of the latest decision."""
    return chosen(town.picker.decisions()[0])


def test_request_trailers_are_answered(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)
    seen = asyncio.run(http2_post(proxy.port, "/v1/completions", body(), trailers=[("x-checksum", "abc")]))
    assert (seen["status"], troubles(proxy)) == (200, {})


@pytest.mark.parametrize("sent", [b"{", b"", b"[]", b'{"model": 1'])
@pytest.mark.parametrize("mode", [MODES["full duplex"], MODES["buffered"]], ids=["full duplex", "buffered"])
def test_a_body_that_is_no_json_object_is_the_clients_fault(
    sent: bytes, mode: dict[str, Any], town: Town, proxied: Proxied
) -> None:
    chunked = request("POST", "/v1/completions", JSON_TYPE, "transfer-encoding: chunked")
    wire = chunked + (b"%x\r\n%b\r\n" % (len(sent), sent) if sent else b"") + b"0\r\n\r\n"
    reply = ask(proxied(town.picker, **mode).port, wire)
    assert (reply.status, reply.body.startswith(b"inference error: BadRequest - ")) == (400, True)


def test_an_unknown_path_is_passed_through(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)
    sent = request("POST", "/tokenize", JSON_TYPE, body=b'{"model": "tiny", "prompt": "hi"}')
    assert ask(proxy.port, sent).status == 200


def test_an_unknown_path_is_refused_where_nothing_is_passed_through(
    town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, config=CONFIG + PARSERS % "openai-parser") as strict:
        reply = ask(proxied(strict).port, request("POST", "/tokenize", JSON_TYPE, body=b"{}"))
    assert (reply.status, b"no parser registered" in reply.body) == (400, True)


def test_two_hundred_streamed_responses_at_once(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, threads=2)
    replies = ask_all(proxy.port, [completion(f"story {n}", stream=True, max_tokens=20) for n in range(200)])
    assert {(reply.status, reply.whole, events(reply)[-1]) for reply in replies} == {(200, True, b"[DONE]")}
    assert troubles(proxy) == {}
    assert settles(0, lambda: town.picker.metric("llm_d_epp_request_running")) == 0


def test_a_client_that_hangs_up_is_refunded(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)

    async def leave_early() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(completion("a long story", stream=True, max_tokens=900))
        await reader.readuntil(b"data: ")
        assert await asyncio.to_thread(town.picker.metric, "llm_d_epp_request_running") == 1
        writer.close()

    asyncio.run(leave_early())
    assert settles(0, lambda: town.picker.metric("llm_d_epp_request_running")) == 0


def test_the_same_prompt_returns_to_the_same_engine(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)
    long = "The quick brown fox jumps over the lazy dog. " * 50
    went = set()
    for _ in range(5):
        assert ask(proxy.port, completion(long)).status == 200
        went.add(picked(town))
    assert len(went) == 1


def test_a_subset_hint_is_kept(town: Town, proxied: Proxied) -> None:
    wanted = town.engines[2].address
    proxy = proxied(town.picker, subset=(wanted,))
    for sent in (completion("one"), GET, completion("two")):
        before = town.engines[2].requests()
        assert ask(proxy.port, sent).status == 200
        assert town.engines[2].requests() == before + (sent is not GET)


def test_a_subset_without_a_known_endpoint_is_503(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, subset=("192.0.2.1:1",))
    assert [ask(proxy.port, sent).status for sent in (completion(), GET)] == [503, 503]


def test_an_empty_pool_is_503_with_and_without_a_body(proxied: Proxied, tmp_path: Path) -> None:
    with picker(tmp_path, endpoints_file(tmp_path / "endpoints.yaml", [])) as lonely:
        proxy = proxied(lonely)
        replies = [ask(proxy.port, sent) for sent in (completion(), GET)]
    assert [reply.status for reply in replies] == [503, 503]
    assert replies[0].header("x-llm-d-request-dropped-reason") == "rejected-no-endpoints"


def test_a_body_beyond_the_limit_is_413(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, "--max-body-bytes=64Ki") as small:
        proxy = proxied(small)
        assert ask(proxy.port, completion(metadata={"padding": "x" * 300_000})).status == 413
        assert ask(proxy.port, completion()).status == 200


def test_the_picker_serves_tls_unless_told_otherwise(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with picker(tmp_path, endpoints, "--secure-serving=true") as secure:
        assert ask(proxied(secure, picker_tls=True).port, completion()).status == 200


OLD_AND_NEW = [
    f"x-{prefix}-inference-{name}" for prefix in ("llm-d", "gateway") for name in ("objective", "fairness-id")
]
CONTROL = [
    *OLD_AND_NEW,
    *("x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"),
    *("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms", "x-llm-d-request-dropped-reason"),
    *(f"{DESTINATION}{suffix}" for suffix in ("-subset", "-served")),
    *("x-prefiller-host-port", "x-encoder-hosts-ports", "x-data-parallel-host-port", "x-kv-cache-source-host-port"),
]


@pytest.mark.parametrize("method", ["POST", "GET"])
@each_mode
def test_the_engine_sees_no_control_header_but_ours(
    mode: dict[str, Any], method: str, proxied: Proxied, tmp_path: Path
) -> None:
    async def run() -> upstream.Upstream:
        async with upstream.listening() as engine:
            endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address])
            with picker(tmp_path, endpoints) as chooser:
                sent = [f"{name}: 1" for name in CONTROL] + [f"{DESTINATION}: 127.0.0.1:1"] * 2
                wire = completion("x", *sent) if method == "POST" else request("GET", "/v1/models", *sent)
                proxy = proxied(chooser, **mode)
                reply = await asyncio.to_thread(ask, proxy.port, wire)
            assert reply.status == 200
            return engine

    engine = asyncio.run(run())
    told = next(at for at, head in enumerate(engine.heads) if "/metrics" not in head.split("\r\n")[0])
    head = engine.heads[told].lower()
    assert [name for name in CONTROL if f"\r\n{name}:" in head] == []
    assert head.count(f"\r\n{DESTINATION}:") == 1
    assert f"\r\n{DESTINATION}: {engine.address}\r\n" in head
