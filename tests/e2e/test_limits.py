"""The picker's own limits, as a client of a real Envoy meets them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.conformance.test_grpc_rogue_plugins import CONFIG as ROGUE
from tests.conformance.test_grpc_rogue_plugins import installed

from .chat import JSON_TYPE, ask, body, completion
from .client import connected, parse, request
from .conftest import Proxied, Town
from .processes import Picker, endpoints_file, picker, settles

LONG = body(user="x" * 700_000)


async def _two_uploads(port: int, chooser: Picker) -> tuple[int, int, int]:
    """Statuses: of a body that comes while another is held, of one after that, and of the one that was held."""
    whole = request("POST", "/v1/completions", JSON_TYPE, body=LONG)
    async with asyncio.timeout(60), connected(port) as (reader, writer):
        writer.write(whole[:-1])
        held = await asyncio.to_thread(settles, True, lambda: chooser.metric("llm_d_epp_held_bytes") > 600_000)
        assert held
        refused = await asyncio.to_thread(ask, port, whole)
        short = await asyncio.to_thread(ask, port, completion())
        writer.write(whole[-1:])
        kept = parse(await reader.read())
    return refused.status, short.status, kept.status


def test_bodies_together_over_max_held_bytes_are_503_and_the_rest_goes_on(
    town: Town, proxied: Proxied, tmp_path: Path
) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    flags = ("--max-held-bytes=1Mi", "--refresh-prometheus-metrics-interval=50ms")
    with picker(tmp_path, endpoints, *flags) as chooser:
        proxy = proxied(chooser)
        assert asyncio.run(_two_uploads(proxy.port, chooser)) == (503, 200, 200)
        assert settles(0, lambda: chooser.metric("llm_d_epp_held_bytes")) == 0


def test_a_body_over_max_body_bytes_is_413(town: Town, proxied: Proxied, tmp_path: Path) -> None:
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints, "--max-body-bytes=256Ki") as chooser:
        proxy = proxied(chooser)
        reply = ask(proxy.port, request("POST", "/v1/completions", JSON_TYPE, body=LONG))
        assert reply.status == 413
        assert ask(proxy.port, completion()).status == 200


def test_a_decision_over_the_decision_timeout_is_503(
    town: Town, proxied: Proxied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.fspath(installed(tmp_path)))
    endpoints = endpoints_file(tmp_path / "endpoints.yaml", [engine.address for engine in town.engines])
    with picker(tmp_path, endpoints, "--decision-timeout=50ms", config=ROGUE) as chooser:
        proxy = proxied(chooser)
        late = ask(proxy.port, completion("late", "x-rogue: signal hang"))
        assert (late.status, b"--decision-timeout" in late.body) == (503, True)
        assert ask(proxy.port, completion("in time")).status == 200
        assert settles(0, lambda: chooser.metric("llm_d_epp_request_running")) == 0
