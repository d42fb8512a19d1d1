"""Two pickers of which one leads, behind an Envoy, under load: told to stop, killed, stopped, cut off.

Who is ready is found as in Kubernetes: a kubelet probes, and what it finds ready is what the gateway knows.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from . import cluster, envoy
from .bootstrap import Json, Setup
from .chat import ask, completion, events
from .client import Reply
from .cluster import Fleet, Namespace, Server, pool
from .gateway import Kubelet, by_readiness, kubelet, leader_first, picker_cluster, picker_filter, serving
from .load import load
from .processes import Picker, settles
from .served import known

A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"
QUICK = ("--ha-lease-duration=3s", "--ha-renew-deadline=2s", "--ha-retry-period=0.5s")
PERIOD_S = 0.2
TOKENS = 300
"""Of a long answer: six seconds."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Engines that take 20 ms a token."""
    with cluster.fleet(tmp_path_factory.mktemp("slow"), 3, "--inter-token-latency", "20ms") as running:
        yield running


@dataclass
class Pair:
    """Two replicas; who leads is found once, at the start."""

    pickers: list[Picker]
    watch: Kubelet
    folder: Path
    stack: ExitStack

    @property
    def ready(self) -> tuple[int, ...]:
        return self.watch.changes[-1][1]

    def settle(self) -> tuple[Picker, Picker]:
        """The leader and the other, once one of them is ready."""
        assert settles(1, lambda: len(self.ready)) == 1
        first, second = self.pickers
        return (first, second) if self.ready == (0,) else (second, first)

    def proxy(self, config: Json, which: str = "newest") -> envoy.Envoy:
        folder = self.folder / f"envoy-{which}"
        folder.mkdir()
        return self.stack.enter_context(envoy.started(envoy.binary(which), config, folder))

    def gateway(self) -> envoy.Envoy:
        """One that knows who is ready and nobody else."""
        return self.proxy(by_readiness(Setup(picker_port=0, picker_tls=True), self.watch.file))


Start = Callable[..., Pair]


@pytest.fixture
def start(slow: Fleet, tmp_path: Path) -> Iterator[Start]:
    """Starts two pickers over two engines of a namespace; a third engine is there to be added."""
    with ExitStack() as stack:

        def two(place: Namespace, *flags: str) -> Pair:
            place.open(pool(slow.port))
            place.pods(a=A, b=B)
            pickers = stack.enter_context(cluster.pickers(place, 2, *flags))
            watch = stack.enter_context(kubelet(pickers, tmp_path / "pickers.json", period_s=PERIOD_S))
            return Pair(pickers, watch, tmp_path, stack)

        yield two


class Story:
    """A long answer that is read meanwhile."""

    def __init__(self, port: int) -> None:
        self._replies: list[Reply] = []
        self._thread = threading.Thread(target=self._read, args=(port,), name="story")
        self._thread.start()

    def _read(self, port: int) -> None:
        self._replies.append(ask(port, completion("story", stream=True, max_tokens=TOKENS)))

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def ended_well(self) -> bool:
        self._thread.join()
        (reply,) = self._replies
        return (reply.status, reply.whole, events(reply)[-1:]) == (200, True, [b"[DONE]"])


def running(picker: Picker) -> float:
    return picker.metric("llm_d_epp_request_running")


def test_a_leader_that_is_told_to_stop_costs_nobody_anything(place: Namespace, start: Start) -> None:
    """Under a lease of 15 s: the other need not wait for its end."""
    pair = start(place)
    leader, other = pair.settle()
    with load(pair.gateway().port, clients=4, streams=2, tokens=25) as requests:
        assert settles(True, lambda: len(requests.sent) > 20)
        leader.child.process.send_signal(signal.SIGTERM)
        assert settles(True, lambda: serving(other))
        assert leader.child.process.poll() is None
        assert leader.child.process.wait(20) == 0
        seen = len(requests.sent)
        assert settles(True, lambda: len(requests.sent) > seen + 20)
    assert set(requests.statuses) == {200}


def test_a_leader_whose_pod_is_deleted_makes_room_before_it_is_told_to_stop(place: Namespace, start: Start) -> None:
    """Meanwhile its preStop hook sleeps, and whoever still asks it is answered."""
    pair = start(place)
    leader, other = pair.settle()
    number = pair.pickers.index(leader)
    place.apply(cluster.pod(f"epp-{number}", app="epp"))
    gateway = pair.gateway()
    place.kubectl("delete", "pod", f"epp-{number}", "--wait=false")
    assert settles(True, lambda: serving(other)) is True
    assert not serving(leader)
    assert leader.child.process.poll() is None
    assert ask(gateway.port, completion()).status == 200


def test_while_draining_new_pods_are_found_and_read(place: Namespace, start: Start) -> None:
    pair = start(place, *QUICK)
    leader, _ = pair.settle()
    story = Story(pair.gateway().port)
    assert settles(1, lambda: running(leader)) == 1
    leader.child.process.send_signal(signal.SIGTERM)
    assert settles(False, lambda: serving(leader)) is False
    place.pods(c=C)

    def read() -> list[str]:
        """Endpoints whose metrics were read within the last seconds."""
        return [row["name"] for row in json.loads(leader.get("/debug/endpoints")) if row["known"]]

    wanted = [f"{place.name}/{name}-rank-0" for name in "abc"]
    assert settles(wanted, read) == wanted
    assert not story.over
    assert story.ended_well()


def test_a_follower_knows_everything_and_answers(place: Namespace, start: Start) -> None:
    pair = start(place, *QUICK)
    leader, other = pair.settle()
    assert settles(known(leader), lambda: known(other)) == known(leader)
    assert [serving(other, name) for name in ("liveness", "readiness", "")] == [True, False, False]
    straight = pair.proxy(leader_first(Setup(picker_port=0, picker_tls=True), [other.grpc_port]))
    assert ask(straight.port, completion()).status == 200
    assert other.metric("llm_d_epp_leader") == 0


def test_a_leader_that_is_killed_is_followed_when_its_lease_has_run_out(place: Namespace, start: Start) -> None:
    pair = start(place, *QUICK)
    leader, other = pair.settle()
    with load(pair.gateway().port, clients=4) as requests:
        assert settles(True, lambda: len(requests.sent) > 20)
        leader.child.kill()
        assert settles((), lambda: pair.ready) == ()
        assert settles(True, lambda: 503 in requests.statuses)
        assert pair.settle()[0] is other
        seen = len(requests.sent)
        assert settles({200}, lambda: set(requests.statuses[max(seen, len(requests.sent) - 20) :])) == {200}
    assert set(requests.statuses) <= {200, 503, 0}
    assert [len(ready) for _, ready in pair.watch.changes][-3:] == [1, 0, 1]


def test_a_gateway_that_may_ask_followers_loses_only_what_was_in_flight(
    which: str, place: Namespace, start: Start
) -> None:
    pair = start(place)
    leader, other = pair.settle()
    ports = [picker.grpc_port for picker in pair.pickers]
    proxy = pair.proxy(leader_first(Setup(picker_port=0, picker_tls=True), ports), which)
    healthy = "cluster.picker.membership_healthy"
    assert settles(1, lambda: proxy.stats(healthy)[healthy]) == 1
    with load(proxy.port, clients=4) as requests:
        assert settles(True, lambda: len(requests.sent) > 20)
        assert other.metric("llm_d_epp_request_total") == 0
        leader.child.kill()
        killed = requests.now()
        assert settles(True, lambda: len(requests.since(killed)) > 100)
        assert not serving(other)
    assert {one.status for one in requests.since(killed)} == {200}


def test_two_are_never_ready_at_once(place: Namespace, start: Start) -> None:
    """The leader sleeps until another leads, and wakes: it must know before it is asked."""
    pair = start(place, *QUICK)
    leader, other = pair.settle()
    leader.child.process.send_signal(signal.SIGSTOP)
    assert settles(True, lambda: serving(other))
    answers: list[bool] = []
    asked = threading.Thread(target=lambda: answers.append(serving(leader, timeout_s=20)))
    asked.start()
    leader.child.process.send_signal(signal.SIGCONT)
    both = [serving(other) and serving(leader) for _ in range(50)]
    asked.join()
    assert answers == [False]
    assert not any(both)
    assert serving(other)
    assert max(len(ready) for _, ready in pair.watch.changes) == 1


def test_without_an_api_server_nobody_leads_and_streams_go_on(alone: Server, start: Start) -> None:
    alone.start()
    pair = start(Namespace(alone, "llm"), *QUICK)
    leader, _ = pair.settle()
    story = Story(pair.gateway().port)
    assert settles(1, lambda: running(leader)) == 1
    alone.child.process.send_signal(signal.SIGSTOP)
    assert settles((), lambda: pair.ready) == ()
    assert leader.child.line(r"leading no more: the lease could not be renewed for 2 s")
    assert not story.over
    assert story.ended_well()
    alone.child.process.send_signal(signal.SIGCONT)
    pair.settle()


def test_the_settings_that_are_tested_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "high-availability.md").read_text()
    shown: Json = yaml.safe_load(page.partition("```yaml\n# Envoy\n")[2].partition("```")[0])
    tested = leader_first(Setup(picker_port=0, picker_tls=True), [1])
    cluster_of_it, service = picker_cluster(tested), picker_filter(tested)["grpc_service"]
    assert shown["grpc_service"]["retry_policy"] == service["retry_policy"]
    assert shown["cluster"] == {name: cluster_of_it[name] for name in shown["cluster"]}
    assert {"health_checks", "common_lb_config", "outlier_detection", "circuit_breakers"} <= set(shown["cluster"])
