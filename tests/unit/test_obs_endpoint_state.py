from __future__ import annotations

import random

import msgspec

from epp.obs.endpoint_state import EndpointState, endpoint_states
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.types import Change, Endpoint, Reading

A = Endpoint("a", "10.0.0.1", 8000, labels={"zone": "x"}, metrics_address="10.0.0.1:9000", rank=1)
B = Endpoint("b", "fd00::2", 8000, namespace="other")


def pool() -> Pool:
    found = Pool()
    found.apply(Change(present=(B, A)))
    reading = Reading(3, 2, 0.5, 16, 1000, 4, running_loras=frozenset({"l2", "l1"}), waiting_loras=frozenset({"l3"}))
    found.update(A.key, reading, 100.0, 1.0)
    return found


def test_what_is_known_of_an_endpoint_is_told() -> None:
    found = pool()
    found.ledger.charge(A.key, until_first=50.0)
    state = endpoint_states(found.snapshot(100.25), {A.key: 1.23456})[0]
    assert state == EndpointState(
        name="default/a",
        address="10.0.0.1:8000",
        labels={"zone": "x"},
        metrics_address="10.0.0.1:9000",
        rank=1,
        known=True,
        age_s=0.25,
        interval_s=1.0,
        waiting=4.0,
        running=2.0,
        kv_usage=0.5,
        inflight=1,
        inflight_tokens=50.0,
        block_tokens=16,
        num_blocks=1000,
        max_loras=4,
        running_loras=["l1", "l2"],
        waiting_loras=["l3"],
        cooling_s=1.235,
    )


def test_an_endpoint_never_read_has_no_age_and_the_mean_of_the_others() -> None:
    state = endpoint_states(pool().snapshot(100.0), {})[1]
    assert (state.name, state.address, state.metrics_address) == ("other/b", "[fd00::2]:8000", "[fd00::2]:8000")
    assert (state.known, state.age_s, state.waiting, state.cooling_s) == (False, None, 3.0, None)


def test_who_cools_is_told_as_the_pools_health_tells_it() -> None:
    health = Health(random.Random(0))
    for _ in range(3):
        health.failure(B.key, 100.0)
    cooling = [state.cooling_s for state in endpoint_states(pool().snapshot(100.0), health.cooling(100.0))]
    assert cooling[0] is None
    assert cooling[1] is not None


def test_it_can_be_written_as_json_and_does_not_change_with_the_pool() -> None:
    found = pool()
    states = endpoint_states(found.snapshot(100.0), {})
    before = msgspec.json.encode(states)
    found.apply(Change(gone=(A.key,)))
    assert msgspec.json.encode(states) == before


def test_no_endpoints_are_no_states() -> None:
    assert endpoint_states(Pool().snapshot(0.0), {}) == []
