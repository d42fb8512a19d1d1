"""What deploy/gateways takes off requests, done by a real Envoy set up as those gateways set up theirs.

The Istio shape merges the shipped EnvoyFilter's patch into the listener, as Istio merges it. The Envoy Gateway shapes
translate the shipped ClientTrafficPolicy as Envoy Gateway does: one removal a header, ahead of every filter.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import envoy, scripted, upstream
from .bootstrap import DESTINATION, Json, Setup, bootstrap
from .client import Reply, fetch, request
from .experiment import BODY
from .scripted import Picking

GATEWAYS = Path(__file__).parents[2] / "deploy" / "gateways"
EARLY = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
ASKS = 4
"""Requests of one try: more than there are engines."""


def shipped(gateway: str) -> Json:
    found: Json = yaml.safe_load((GATEWAYS / gateway / "strip-routing-headers.yaml").read_text())
    return found


def istio_patch() -> Json:
    """Fields of the HttpConnectionManager that the EnvoyFilter merges in."""
    (patch,) = shipped("istio")["spec"]["configPatches"]
    return dict(patch["patch"]["value"]["typed_config"])


def envoy_gateway_patch(gateway: str) -> Json:
    """The same, as Envoy Gateway writes it from a ClientTrafficPolicy."""
    removed = shipped(gateway)["spec"]["headers"]["earlyRequestHeaders"]["remove"]
    mutation = {"@type": EARLY, "mutations": [{"remove": name} for name in removed]}
    name = "envoy.http.early_header_mutation.header_mutation"
    return {"early_header_mutation_extensions": [{"name": name, "typed_config": mutation}]}


def manager(config: Json) -> Json:
    found: Json = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


@dataclass(frozen=True)
class Shape:
    """How a gateway sets up its Envoy: what it adds to the listener, and who finds the destination."""

    patch: Json
    setup: Json
    """Fields of Setup."""

    def change(self, config: Json) -> None:
        """Protobuf's merge of two messages, as Istio does it: repeated fields grow."""
        into = manager(config)
        for name, value in self.patch.items():
            if name != "@type":
                into[name] = [*into.get(name, []), *value]


SHAPES = {
    "istio": Shape(istio_patch(), {"destination": "override_host"}),
    "envoy-gateway": Shape(envoy_gateway_patch("envoy-gateway"), {"destination": "override_host", "metadata": False}),
    "envoy-ai-gateway": Shape(
        envoy_gateway_patch("envoy-ai-gateway"), {"destination": "original_dst", "metadata": False}
    ),
}
NAMES = [
    mutation["remove"] for mutation in istio_patch()["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
]


@dataclass(frozen=True)
class Seen:
    replies: list[Reply]
    told: list[str]
    """Names of routing headers that reached the picker."""
    asked: int
    """Streams that reached the picker."""
    picked: upstream.Upstream
    named: upstream.Upstream
    """The engine that the client names in its headers."""


def names_every_header(address: str, *, method: str = "POST") -> bytes:
    headers = [f"{name}: {address}" for name in NAMES]
    if method == "GET":
        return request("GET", "/v1/models", *headers)
    return request("POST", "/v1/completions", "content-type: application/json", *headers, body=BODY)


def tried(
    which: str,
    change: Callable[[Json], None],
    *,
    away: bool = False,
    method: str = "POST",
    **setup: Any,  # fields of Setup
) -> Seen:
    """A client names an engine in every routing header, ASKS times; `away`: nobody listens where the picker should."""

    async def run() -> Seen:
        async with (
            upstream.listening() as picked,
            upstream.listening() as named,
            scripted.serving(Picking(picked.address)) as picker,
        ):
            config = bootstrap(
                Setup(
                    picker_port=1 if away else picker.port,
                    fail_open=away,
                    endpoints=(picked.address, named.address),
                    **setup,
                )
            )
            change(config)
            replies = await _asked(which, config, names_every_header(named.address, method=method))
            return Seen(replies, _told(picker), len(picker.streams), picked, named)

    return asyncio.run(run())


async def _asked(which: str, config: Json, asked: bytes) -> list[Reply]:
    with tempfile.TemporaryDirectory() as folder, envoy.started(envoy.binary(which), config, Path(folder)) as proxy:
        return [await fetch(proxy.port, asked) for _ in range(ASKS)]


def _told(picker: scripted.Picker) -> list[str]:
    heads = [message.request_headers for stream in picker.streams for message in stream.received()]
    return sorted({header.key for head in heads for header in head.headers.headers if header.key in NAMES})


def statuses(seen: Seen) -> list[int]:
    return [reply.status for reply in seen.replies]


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Shape:
    return SHAPES[request.param]


def test_the_picker_is_told_nothing_that_a_client_says_of_routing(which: str, shape: Shape) -> None:
    seen = tried(which, shape.change, **shape.setup)
    assert (statuses(seen), seen.asked, seen.told) == ([200] * ASKS, ASKS, [])
    assert (len(seen.picked.heads), len(seen.named.heads)) == (ASKS, 0)


def test_the_engine_is_told_only_what_the_picker_says(which: str, shape: Shape) -> None:
    seen = tried(which, shape.change, **shape.setup)
    arrived = {name: values for name in NAMES if (values := seen.picked.header(name))}
    assert arrived == {DESTINATION: [seen.picked.address]}


def test_nobody_chooses_where_envoy_connects_while_the_picker_is_away(which: str) -> None:
    shape = SHAPES["envoy-ai-gateway"]
    seen = tried(which, shape.change, away=True, method="GET", **shape.setup)
    assert statuses(seen) == [503] * ASKS
    assert seen.picked.heads + seen.named.heads == []


@pytest.mark.parametrize("gateway", ["istio", "envoy-gateway"])
def test_the_gateway_balances_by_itself_while_the_picker_is_away(gateway: str, which: str) -> None:
    seen = tried(which, SHAPES[gateway].change, away=True, method="GET", **SHAPES[gateway].setup)
    assert statuses(seen) == [200] * ASKS
    assert len(seen.picked.heads) == len(seen.named.heads) == ASKS // 2


def test_without_it_a_client_chooses_while_the_picker_is_away(which: str, shape: Shape) -> None:
    seen = tried(which, as_it_is, away=True, method="GET", **shape.setup)
    assert (statuses(seen), len(seen.named.heads)) == ([200] * ASKS, ASKS)


def test_without_it_the_picker_is_told_everything(which: str, shape: Shape) -> None:
    assert tried(which, as_it_is, **shape.setup).told == sorted(NAMES)


def as_it_is(_: Json) -> None:
    """Nothing is taken off."""


def removed_by_the_route(config: Json) -> None:
    """What an HTTPRoute's RequestHeaderModifier becomes in Envoy."""
    (route,) = manager(config)["route_config"]["virtual_hosts"][0]["routes"]
    route["request_headers_to_remove"] = list(NAMES)


def test_a_route_takes_headers_off_after_the_picker_saw_them(which: str) -> None:
    seen = tried(which, removed_by_the_route, **SHAPES["istio"].setup)
    assert seen.told == sorted(NAMES)
    assert len(seen.picked.heads) == ASKS, "the picker's metadata still counts"


def test_a_route_takes_off_the_pickers_own_word_where_the_header_is_the_destination(which: str) -> None:
    seen = tried(which, removed_by_the_route, **SHAPES["envoy-ai-gateway"].setup)
    assert (statuses(seen), seen.asked) == ([503] * ASKS, ASKS)
    assert seen.picked.heads + seen.named.heads == []
