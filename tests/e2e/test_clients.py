"""Clients and protocols that are not ours, through a real Envoy and the picker."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from openai import OpenAI

from . import grpc_engine, upstream
from .chat import JSON_TYPE, ask, body, completion, events
from .client import connected, request
from .conftest import Proxied, Town
from .processes import CONFIG, PARSERS, endpoints_file, picker, settles
from .scripted import SERVICE
from .test_requests import MODES, troubles


def test_the_openai_client_chats(town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker)
    with OpenAI(base_url=f"{proxy.url}/v1", api_key="none", max_retries=0) as client:
        asked: Any = [{"role": "user", "content": "Tell me a story"}]
        whole = client.chat.completions.create(model="tiny", messages=asked, max_tokens=5)
        pieces = list(client.chat.completions.create(model="tiny", messages=asked, max_tokens=5, stream=True))
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 5
    assert pieces[-1].choices[0].finish_reason == "length"


@pytest.mark.needs_debian("curl")
def test_curl_streams(town: Town, proxied: Proxied) -> None:
    url = f"{proxied(town.picker).url}/v1/completions"
    command = ["curl", "-sSN", "--fail", "-H", JSON_TYPE, "-d", body(stream=True).decode(), url]
    said = subprocess.run(command, capture_output=True, timeout=20, check=True).stdout
    assert said.rstrip().endswith(b"data: [DONE]")


@pytest.mark.needs_debian("nghttp2-client")
def test_h2load_sees_no_failure(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    (tmp_path / "body.json").write_bytes(body())
    url = f"{proxied(town.picker, threads=2).url}/v1/completions"
    command = ["h2load", "-n200", "-c2", "-m16", "-d", str(tmp_path / "body.json"), "-H", JSON_TYPE, url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "status codes: 200 2xx, 0 3xx, 0 4xx, 0 5xx" in said


def test_vllms_grpc_is_routed_and_its_tokens_counted(proxied: Proxied, tmp_path: Path) -> None:
    async def run() -> tuple[list[str], float]:
        async with grpc_engine.serving() as port:
            endpoints = endpoints_file(tmp_path / "endpoints.yaml", [f"127.0.0.1:{port}"])
            with picker(tmp_path, endpoints, config=CONFIG + PARSERS % "vllmgrpc-parser") as chooser:
                proxy = proxied(chooser, upstream_http2=True)
                said = await grpc_engine.call(proxy.port)
                tokens = await asyncio.to_thread(
                    settles, 2, lambda: chooser.metric("llm_d_epp_request_output_tokens_sum")
                )
                assert troubles(proxy) == {}
                return said, tokens

    said, tokens = asyncio.run(run())
    assert (said, tokens) == ([grpc_engine.CHUNK.hex(), grpc_engine.COMPLETE.hex()], 2)


def test_a_websocket_is_passed_on(proxied: Proxied, tmp_path: Path) -> None:
    async def run() -> tuple[bytes, bytes]:
        async with upstream.listening() as engine:
            with picker(tmp_path, endpoints_file(tmp_path / "endpoints.yaml", [engine.address])) as chooser:
                proxy = proxied(chooser)
                upgrade = request("GET", "/ws", "upgrade: websocket", "connection: upgrade", close=False)
                async with asyncio.timeout(10), connected(proxy.port) as (reader, writer):
                    writer.write(upgrade)
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(b"ping")
                    return head.split()[1], await reader.readexactly(4)

    assert asyncio.run(run()) == (b"101", b"ping")


@pytest.mark.parametrize("mode", ["full duplex", "buffered", "buffered request, streamed response"])
def test_a_rewritten_model_is_named_back_to_the_client(mode: str, town: Town, proxied: Proxied) -> None:
    proxy = proxied(town.picker, **MODES[mode])
    headers = "x-llm-d-model-name-rewrite: tiny"
    plain = ask(proxy.port, completion("hello", headers, model="alias"))
    streamed = ask(proxy.port, completion("hello", headers, model="alias", stream=True))
    assert (plain.status, json.loads(plain.body)["model"]) == (200, "alias")
    assert {json.loads(event)["model"] for event in events(streamed)[:-1]} == {"alias"}
    assert troubles(proxy) == {}


def test_the_decision_of_a_response_can_be_looked_up(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints, "--emit-decision-id") as chooser:
        proxy = proxied(chooser)
        replies = [ask(proxy.port, completion("why there")) for _ in range(3)]
        keys = [reply.header("x-epp-decision-id") for reply in replies]
        found = chooser.decisions()
    assert [decision["id"] for decision in reversed(found)] == keys
    assert "why there" not in json.dumps(found)


@pytest.mark.parametrize("port", ["grpc_port", "grpc_health_port"])
@pytest.mark.parametrize("service", ["", "liveness", "readiness", "inference-extension", SERVICE])
def test_health_is_told_on_both_ports(service: str, port: str, town: Town) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{town.picker.ports[port]}") as channel:
        asked = health_pb2.HealthCheckRequest(service=service)
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_key_in_the_config_ends_the_picker_with_its_path(town: Town, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with pytest.raises(Exception, match="dataLayers"), picker(tmp_path, endpoints, config=CONFIG + "dataLayers: {}\n"):
        pass
