"""The files of deploy/standalone as they are shipped, but for their ports."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import yaml

from . import envoy, upstream
from .bootstrap import DESTINATION
from .chat import ask, completion
from .client import request
from .conftest import Town
from .processes import endpoints_file, free_port, picker, settles

FOLDER = Path(__file__).parents[2] / "deploy" / "standalone"


def shipped(picker_port: int, admin_port: int = 0) -> dict[str, Any]:
    """envoy.yaml on ephemeral ports."""
    ports = {8081: 0, 19000: admin_port, 19001: 0, 9002: picker_port}
    text = (FOLDER / "envoy.yaml").read_text()
    moved = re.sub(r"port_value: (\d+)", lambda found: f"port_value: {ports[int(found[1])]}", text)
    whole: dict[str, Any] = yaml.safe_load(moved)
    return whole


def test_a_request_arrives_over_tls(which: str, town: Town, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    config = (FOLDER / "epp.yaml").read_text().replace("deploy/standalone/endpoints.yaml", "ENDPOINTS")
    with (
        picker(tmp_path, endpoints, "--secure-serving=true", config=config) as chooser,
        envoy.started(envoy.binary(which), shipped(chooser.grpc_port), tmp_path) as proxy,
    ):
        assert settles(1, lambda: proxy.stats("cluster.picker.membership_healthy").popitem()[1]) == 1
        assert ask(proxy.port, completion()).status == 200
        renamed = ask(proxy.port, completion(model="assistant"))
        assert (renamed.status, json.loads(renamed.body)["model"]) == (200, "assistant")


def test_a_client_cannot_choose_its_destination_while_the_picker_is_away(which: str, tmp_path: Path) -> None:
    async def run() -> tuple[int, list[str]]:
        async with upstream.listening() as engine:
            with envoy.started(envoy.binary(which), shipped(picker_port=1), tmp_path) as proxy:
                sent = completion("x", f"{DESTINATION}: {engine.address}")
                reply = await asyncio.to_thread(ask, proxy.port, sent)
            return reply.status, engine.heads

    assert asyncio.run(run()) == (503, [])


def test_readiness_and_metrics_have_a_listener_of_their_own(which: str, tmp_path: Path) -> None:
    config = shipped(picker_port=1, admin_port=free_port())
    config["static_resources"]["listeners"].reverse()
    with envoy.started(envoy.binary(which), config, tmp_path) as proxy:
        assert ask(proxy.port, request("GET", "/ready")).body == b"LIVE\n"
        assert b"envoy_server_live" in ask(proxy.port, request("GET", "/stats/prometheus")).body
        assert ask(proxy.port, request("GET", "/quitquitquit")).status == 404


def test_the_endpoints_file_is_one_the_readme_fits() -> None:
    told = re.search(r"--port (\d+) --data-parallel-size (\d+)", (FOLDER / "README.md").read_text())
    assert told is not None
    first, count = int(told[1]), int(told[2])
    entries = yaml.safe_load((FOLDER / "endpoints.yaml").read_text())["endpoints"]
    assert [entry["port"] for entry in entries] == [str(first + rank) for rank in range(count)]
