"""The chart's own Envoy with failOpen: without a picker any model server answers, with one the picked one does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.chart_kit import Release

from . import envoy, upstream
from .bootstrap import DESTINATION
from .chat import ask, completion
from .conftest import Town
from .processes import endpoints_file, picker, settles

SERVICES = re.compile(r"qwen-epp-(pods|endpoints)\.llm\.svc\.cluster\.local")


def rendered(picker_port: int, *engine_ports: int) -> dict[str, Any]:
    """Envoy's file as the chart writes it, with its names looked up here and its own ports free ones."""
    ports = [{"number": port} for port in engine_ports]
    proxy = {"enabled": True, "mode": "service", "failOpen": True, "port": 1}
    release = Release(proxy=proxy, modelServers={"targetPorts": ports}, epp={"extProcPort": picker_port})
    whole: dict[str, Any] = yaml.safe_load(
        SERVICES.sub("127.0.0.1", release.one("ConfigMap", "qwen-epp-proxy")["data"]["envoy.yaml"])
    )
    listeners = whole["static_resources"]["listeners"]
    for place in (whole["admin"], *listeners):
        place["address"]["socket_address"] |= {"address": "127.0.0.1", "port_value": 0}
    return whole


def test_without_a_picker_a_model_server_answers_and_never_the_one_a_client_names(which: str, tmp_path: Path) -> None:
    async def run() -> tuple[int, int, int]:
        async with upstream.listening() as engine, upstream.listening() as stranger:
            config = rendered(1, engine.port)
            with envoy.started(envoy.binary(which), config, tmp_path) as proxy:
                sent = completion("x", f"{DESTINATION}: {stranger.address}")
                reply = await asyncio.to_thread(ask, proxy.port, sent)
            return reply.status, len(engine.heads), len(stranger.heads)

    assert asyncio.run(run()) == (200, 1, 0)


def test_with_a_picker_every_request_goes_where_it_says(which: str, town: Town, tmp_path: Path) -> None:
    picked, others = town.engines[0], town.engines[1:]
    ports = [int(engine.address.rpartition(":")[2]) for engine in town.engines]
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [picked.address])
    with (
        picker(tmp_path, endpoints, "--secure-serving=true") as chooser,
        envoy.started(envoy.binary(which), rendered(chooser.grpc_port, *ports), tmp_path) as proxy,
    ):
        assert settles(1, lambda: proxy.stats("cluster.picker.membership_healthy").popitem()[1]) == 1
        before = [engine.requests() for engine in (picked, *others)]
        assert [ask(proxy.port, completion()).status for _ in range(12)] == [200] * 12
        after = [engine.requests() for engine in (picked, *others)]
    assert [now - then for then, now in zip(before, after, strict=True)] == [12, 0, 0, 0]


def test_when_the_picker_dies_requests_with_a_body_go_on_once_that_is_noticed(
    which: str, town: Town, tmp_path: Path
) -> None:
    ports = [int(engine.address.rpartition(":")[2]) for engine in town.engines]
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [town.engines[0].address])
    with (
        picker(tmp_path, endpoints, "--secure-serving=true") as chooser,
        envoy.started(envoy.binary(which), rendered(chooser.grpc_port, *ports), tmp_path) as proxy,
    ):
        assert settles(1, lambda: proxy.stats("cluster.picker.membership_healthy").popitem()[1]) == 1
        chooser.child.kill()
        assert settles(0, lambda: proxy.stats("cluster.picker.membership_healthy").popitem()[1], 30.0) == 0
        assert [ask(proxy.port, completion()).status for _ in range(4)] == [200] * 4
