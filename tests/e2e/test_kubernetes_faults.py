"""Kubernetes fails in every way under a picker that serves: it says what is wrong and goes on with what it knows."""

from __future__ import annotations

import signal

from . import cluster
from .cluster import POOL, Fleet, Namespace, Server, pool, running, steering, there
from .conftest import Serve
from .gateway import serving
from .processes import settles

A, B, C = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def test_without_permission_it_serves_what_it_knows_and_says_what_is_missing(
    place: Namespace, fleet: Fleet, serve: Serve
) -> None:
    place.open(pool(fleet.port))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")
    with served.undisturbed():
        place.kubectl("delete", "rolebinding", "epp-rb")
        place.server.fault(cut_watches=True)
        line = served.says("pods: forbidden:")
        assert "give the service account get, list and watch" in line
        assert served.picker.metric("llm_d_epp_watch_synced", resource="pods") == 0
        place.pods(b=B)
        place.apply(cluster.BINDING)
        served.settle("a-rank-0", "b-rank-0")
        assert served.picker.metric("llm_d_epp_watch_synced", resource="pods") == 1


def test_an_api_server_that_was_killed_and_lost_its_state_is_no_trouble(
    alone: Server, fleet: Fleet, serve: Serve
) -> None:
    alone.start()
    place = Namespace(alone, "llm")
    place.open(pool(fleet.port))
    place.pods(a=A, b=B)
    served = serve(place)
    served.settle("a-rank-0", "b-rank-0")
    with served.undisturbed():
        alone.child.kill()
        served.says("pods: lagging:")
        # Fewer writes than before: its versions go back.
        alone.start(*there(place, pool(fleet.port), running("b", B), running("c", C)))
        served.settle("b-rank-0", "c-rank-0")


def test_an_api_server_that_is_silent_is_waited_for(alone: Server, fleet: Fleet, serve: Serve) -> None:
    alone.start()
    place = Namespace(alone, "llm")
    place.open(pool(fleet.port))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")
    with served.undisturbed():
        alone.child.process.send_signal(signal.SIGSTOP)
        served.settle("a-rank-0")
        alone.child.process.send_signal(signal.SIGCONT)
        place.pods(b=B)
        served.settle("a-rank-0", "b-rank-0")


def test_a_picker_that_starts_before_the_api_server_waits_for_it(alone: Server, fleet: Fleet, serve: Serve) -> None:
    alone.start()  # it makes the certificate that a kubeconfig names
    alone.child.kill()
    place = Namespace(alone, "llm")
    served = serve(place)
    served.says("pools.inference.networking.k8s.io: failing:")
    assert not serving(served.picker)
    alone.start(*there(place, pool(fleet.port), running("a", A)))
    served.settle("a-rank-0")


def test_broken_objects_are_named_and_what_they_said_before_counts(
    place: Namespace, fleet: Fleet, serve: Serve
) -> None:
    place.open(pool(fleet.port), steering("InferenceObjective", "urgent", priority="high"))
    place.pods(a=A, b=B)
    served = serve(place)
    served.settle("a-rank-0", "b-rank-0")
    served.says("inferenceobjectives.llm-d.ai urgent can't be used: Expected `int")
    with served.undisturbed():
        place.patch(f"infpool/{POOL}", {"spec": {"targetPorts": [{"number": "eight"}]}})
        assert "what it said before counts" in served.says(f"inferencepools.{cluster.NEW} {POOL} can't be used")
        place.tell("b", podIP=["not", "one"])
        served.says("pods b can't be used")
        served.settle("a-rank-0", "b-rank-0")
        place.tell("b", podIP=C)
        assert settles(f"{C}:{fleet.port}", lambda: served.endpoints().get("b-rank-0"))
    assert served.picker.metric("llm_d_epp_broken_objects", resource="pods") == 0


def test_a_rotated_token_is_read_when_the_old_one_is_refused(alone: Server, fleet: Fleet, serve: Serve) -> None:
    alone.start()
    place = Namespace(alone, "llm")
    place.open(pool(fleet.port))
    place.pods(a=A)
    served = serve(place)
    served.settle("a-rank-0")
    with served.undisturbed():
        alone.kubeconfig("llm.kubeconfig", "picker-2")
        alone.child.kill()
        alone.start(*there(place, pool(fleet.port), running("a", A)), tokens=("picker-2",))
        place.pods(b=B)
        served.settle("a-rank-0", "b-rank-0")
    assert served.picker.metric("llm_d_epp_watch_errors_total", cause="unauthorized") > 0
