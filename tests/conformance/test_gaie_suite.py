"""The cases of the Gateway API Inference Extension's conformance suite, through a real Envoy as far as a picker shows.

Named as there; docs/conformance.md tells which are the gateway's controller's alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.bootstrap import Setup
from tests.e2e.chat import ask, ask_all
from tests.e2e.client import request
from tests.e2e.envoy import Envoy
from tests.e2e.gateway import by_readiness, serving, write_endpoints
from tests.e2e.processes import settles

from . import suite
from .suite import SERVED, World, answered_by, gateway, post, routed, telling_who_served, went_to

A, B, C = suite.PODS["primary"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with suite.world(tmp_path_factory.mktemp("suite")) as made:
        yield made


@pytest.fixture(params=["oldest", "newest"])
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def hundred(proxy: Envoy, wire: bytes) -> set[str]:
    """Who answered a hundred requests, all of them well."""
    return {answered_by(reply) for reply in ask_all(proxy.port, [wire] * 100)}


def test_the_suites_probe_is_answered(world: World) -> None:
    assert settles(True, lambda: serving(world.picker("primary"), service="inference-extension")) is True


@pytest.mark.parametrize("pods", [(C,), (A, B), (A, B, C)], ids=["one", "two", "all"])
@pytest.mark.parametrize("destination", ["override_host", "original_dst"])
def test_gateway_following_epp_routing(
    world: World, which: str, tmp_path: Path, pods: tuple[str, ...], destination: str
) -> None:
    (port,) = world.ports["primary"]
    with gateway(tmp_path, which, routed(world, "primary", destination=destination)) as proxy:
        assert hundred(proxy, post("/primary-gateway-test", *pods)) == {f"{pod}:{port}" for pod in pods}


def test_an_address_that_is_no_endpoint_yields_none(world: World, which: str, tmp_path: Path) -> None:
    with gateway(tmp_path, which, routed(world, "primary")) as proxy:
        assert ask(proxy.port, post("/primary-gateway-test", "192.0.2.1")).status == 429
        assert went_to(proxy, post("/primary-gateway-test", "192.0.2.1", B)) == f"{B}:{world.ports['primary'][0]}"


def test_gateway_following_epp_routing_with_data_parallelism(world: World, which: str, tmp_path: Path) -> None:
    first, second, third = suite.PODS["dp"]
    ranks = world.ports["dp"]
    any_rank = {pod: {f"{pod}:{port}" for port in ranks} for pod in suite.PODS["dp"]}
    some = [f"{second}:{ranks[0]}", f"{second}:{ranks[2]}"]
    with gateway(tmp_path, which, routed(world, "dp")) as proxy:
        one = hundred(proxy, post("/primary-gateway-dp-test", second))
        two = hundred(proxy, post("/primary-gateway-dp-test", first, f"{third}:{ranks[1]}"))
        all_three = hundred(proxy, post("/primary-gateway-dp-test", first, *some, third))
    assert one <= any_rank[second]
    assert two - any_rank[first] == {f"{third}:{ranks[1]}"}
    assert two & any_rank[first]
    assert all_three <= any_rank[first] | set(some) | any_rank[third]
    assert [bool(all_three & found) for found in (any_rank[first], set(some), any_rank[third])] == [True] * 3


def test_gateway_destination_endpoint_served(world: World, tmp_path: Path) -> None:
    (port,) = world.ports["primary"]
    with gateway(tmp_path, "newest", telling_who_served(routed(world, "primary"))) as proxy:
        for pod in (A, B, C):
            reply = ask(proxy.port, post("/destination-endpoint-served-test", pod))
            assert (answered_by(reply), reply.header(SERVED)) == (f"{pod}:{port}", f"{pod}:{port}")
            assert reply.header("x-went-into-resp-headers") == "true"


def test_a_gateway_that_does_not_tell_who_served_is_found_out(world: World, which: str, tmp_path: Path) -> None:
    with gateway(tmp_path, which, routed(world, "primary")) as proxy:
        told = ask(proxy.port, post("/destination-endpoint-served-test", A)).header(SERVED)
    assert told is not None
    assert told.startswith("fail: missing ")


def test_epp_unavailable_fail_open(world: World, which: str, tmp_path: Path) -> None:
    target, members = world.members("secondary")[0], set(world.members("secondary"))
    wire = post("/failopen-pool-test", target.rpartition(":")[0])
    file = tmp_path / "pickers.json"
    write_endpoints(file, [world.picker("secondary").grpc_port])
    setup = Setup(picker_port=0, picker_tls=True, fail_open=True, destination="override_host", endpoints=tuple(members))
    with gateway(tmp_path, which, by_readiness(setup, file)) as proxy:
        assert settles({target}, lambda: {went_to(proxy, wire)}) == {target}
        # As the suite does it: the picker's Service has no endpoint any more.
        write_endpoints(file, [])
        everybody = settles(True, lambda: len({went_to(proxy, wire) for _ in range(6)} & members) > 1)
        assert everybody is True
        assert {went_to(proxy, wire) for _ in range(20)} <= members
        write_endpoints(file, [world.picker("secondary").grpc_port])
        assert settles({target}, lambda: {went_to(proxy, wire) for _ in range(6)}) == {target}


def test_gateway_weighted_across_two_inference_pools(world: World, which: str, tmp_path: Path) -> None:
    weights = [
        {"name": "endpoints", "weight": 70},
        {"name": "endpoints-2", "weight": 30, "typed_per_filter_config": suite.SECOND_PICKER},
    ]
    route = {"match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": weights}, "timeout": "60s"}}
    config = suite.beside(routed(world, "primary"), routed(world, "secondary"), [route])
    wire = post("/weighted-two-pools-test", *suite.PODS["primary"], *suite.PODS["secondary"])
    pools = {member: pool for pool in ("primary", "secondary") for member in world.members(pool)}
    before = {pool: picks(world, pool) for pool in ("primary", "secondary")}
    with gateway(tmp_path, which, config) as proxy:
        hits = Counter(pools[answered_by(reply)] for reply in ask_all(proxy.port, [wire] * 400))
    # The suite's own tolerance is 0.1, over twice as few requests.
    assert abs(hits["primary"] / 400 - 0.7) <= 0.1
    assert {pool: picks(world, pool) - before[pool] for pool in before} == dict(hits)


def picks(world: World, pool: str) -> float:
    return world.picker(pool).metric("llm_d_epp_scheduler_attempts_total", status="success")


def test_httproute_multiple_rules_different_pools(world: World, which: str, tmp_path: Path) -> None:
    routes = [
        {"match": {"prefix": "/test-primary"}, "route": {"cluster": "endpoints"}},
        {
            "match": {"prefix": "/test-secondary"},
            "route": {"cluster": "endpoints-2"},
            "typed_per_filter_config": suite.SECOND_PICKER,
        },
    ]
    config = suite.beside(routed(world, "primary"), routed(world, "secondary"), routes)
    with gateway(tmp_path, which, config) as proxy:
        for pool in ("primary", "secondary"):
            asked = [request("GET", f"/test-{pool}"), post(f"/test-{pool}", *suite.PODS[pool])]
            assert {went_to(proxy, wire) for wire in asked * 5} <= set(world.members(pool))


def test_httproute_multiple_gateways_different_pools(world: World, which: str, tmp_path: Path) -> None:
    for pool in ("primary", "secondary"):
        with gateway(tmp_path / pool, which, routed(world, pool)) as proxy:
            assert went_to(proxy, request("GET", f"/test-{pool}-gateway")) in world.members(pool)


@pytest.mark.parametrize("pool", ["h2c", "secondary", "primary"], ids=["h2c", "http", "omitted"])
def test_inference_pool_app_protocol(world: World, tmp_path: Path, pool: str) -> None:
    assert settles(True, lambda: serving(world.picker(pool))) is True
    config = telling_who_served(routed(world, pool, upstream_http2=pool == "h2c"))
    with gateway(tmp_path, "newest", config) as proxy:
        for member in world.members(pool):
            reply = ask(proxy.port, post(f"/inferencepool-app-protocol-{pool}", member))
            assert (answered_by(reply), reply.header(SERVED)) == (member, member)


def test_inference_pool_missing_epp_ref(world: World, tmp_path: Path) -> None:
    with gateway(tmp_path, "newest", routed(world, "no-ref")) as proxy:
        assert went_to(proxy, post("/missing-epp-ref-test", B)) == f"{B}:{world.ports['no-ref'][0]}"


def test_inference_pool_httproute_port_validation(world: World, which: str, tmp_path: Path) -> None:
    with gateway(tmp_path, which, routed(world, "primary")) as proxy:
        for case in ("unspecified", "matching", "non-matching"):
            assert went_to(proxy, request("GET", f"/test-port-{case}")) in world.members("primary")


def test_the_configuration_is_the_one_that_is_told() -> None:
    assert suite.CONFIG.strip() in (suite.ROOT / "docs" / "conformance.md").read_text()
