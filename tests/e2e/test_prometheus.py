"""Every query of the dashboards and alerts, asked of a real Prometheus that reads a calm picker and a stormy one."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.queries import DASHBOARDS, FOLDER, Query, alerts, of_dashboard, variables

from . import envoy
from .bootstrap import Setup
from .chat import JSON_TYPE, ask, completion
from .client import request
from .conftest import FAST
from .processes import Picker, endpoints_file, engines, free_port, picker, settles
from .prometheus import Prometheus, Target, prometheus

pytestmark = pytest.mark.needs_debian("prometheus")

FLAGS = (
    *("--enable-grpc-stream-metrics", "--refresh-prometheus-metrics-interval=100ms", "--max-body-bytes=64Ki"),
    "--max-cooling-share=0.5",
)
NEEDS_KUBERNETES = {"Leaders", "Leader", "Kinds of objects watched", "Lists and watches that failed", "Objects"}
NEEDS_A_FAULT = {"Plug-ins that broke their contract", "Plug-ins suspended"}
NEEDS_A_RULE = {"Models rewritten"}
NEEDS_A_QUEUE = {
    "Requests in the queue",
    "Longest flows",
    "Wait in the queue",
    "How requests left the queue",
    "Fill of the queue",
    "Requests ended for others",
}
"""With the gate flowControl open, and a full pool."""
SILENT = NEEDS_KUBERNETES | NEEDS_A_FAULT | NEEDS_A_RULE | NEEDS_A_QUEUE
"""Panels that may have nothing to show here; their queries are asked all the same."""
PATIENCE_S = 30.0
LONG = "The quick brown fox jumps over the lazy dog. " * 40
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
GOOD = (completion(LONG), completion(LONG, max_tokens=20, **USAGE), completion(f"{LONG} again"))
BAD = (
    *(completion("a"), completion("b", stream=True), completion(metadata={"padding": "x" * 100_000})),
    request("POST", "/v1/completions", JSON_TYPE, body=b"{"),
)


@contextmanager
def load(port: int, requests: tuple[bytes, ...]) -> Iterator[None]:
    """One request after the other, until the block ends."""
    over = threading.Event()

    def send() -> None:
        for one in itertools.cycle(requests):
            if over.is_set():
                return
            ask(port, one)

    sender = threading.Thread(target=send, name="load")
    sender.start()
    try:
        yield
    finally:
        over.set()
        sender.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """`calm`: two engines that are well. `stormy`: one that fails now and then, one that is not there."""
    folder = tmp_path_factory.mktemp("watched")
    with ExitStack() as stack:
        well = stack.enter_context(engines(folder, 2, *FAST))
        failing = ("--failure-injection-rate", "30", "--failure-types", "server_error")
        sick = stack.enter_context(engines(folder, 1, *FAST, *failing))
        targets = [Target("engines", one.address, "http", f"engine-{rank}") for rank, one in enumerate([*well, *sick])]
        pools = {
            "calm": ([one.address for one in well], GOOD),
            "stormy": ([sick[0].address, f"127.0.0.1:{free_port()}"], BAD),
        }
        for name, (addresses, requests) in pools.items():
            chooser = stack.enter_context(_picker(folder / name, name, addresses))
            port = stack.enter_context(_envoy(folder / name, chooser)).port
            # Else each of the queries would wait its time for what never comes.
            assert requests is BAD or ask(port, requests[0]).status == 200
            stack.enter_context(load(port, requests))
            metrics = f"127.0.0.1:{chooser.ports['metrics_port']}"
            targets.append(Target(f"{name}-epp", metrics, "http-metrics", f"{name}-epp-0"))
        yield stack.enter_context(prometheus(folder, targets, FOLDER / "alerts.yaml"))


@contextmanager
def _picker(folder: Path, pool: str, addresses: list[str]) -> Iterator[Picker]:
    folder.mkdir()
    endpoints = endpoints_file(folder / "endpoints.yaml", addresses)
    with picker(folder, endpoints, *FLAGS, f"--pool-name={pool}") as running:
        yield running


@contextmanager
def _envoy(folder: Path, chooser: Picker) -> Iterator[envoy.Envoy]:
    setup = Setup(picker_port=chooser.grpc_port, buffer_bytes=1 << 20)
    with envoy.running(envoy.binary("newest"), setup, folder) as running:
        yield running


QUERIES = [query for path in DASHBOARDS for query in of_dashboard(path)]


def ids(query: Query) -> str:
    return f"{query.where} {query.legend}"


def there(look: Callable[[], Any]) -> Any:
    """What `look` finds, once it finds something."""
    settles(True, lambda: bool(look()), PATIENCE_S)
    return look()


@pytest.mark.parametrize("query", QUERIES, ids=ids)
def test_every_panel_has_something_to_show(query: Query, server: Prometheus) -> None:
    silent = query.where.partition(": ")[2] in SILENT
    found = server.ask(query.text) if silent else there(lambda: server.ask(query.text))
    legend = set(re.findall(r"{{(\w+)}}", query.legend))
    assert silent or [series for series in found if legend <= set(series["metric"])], (query.text, found)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_the_variables_offer_what_is_there(path: Path, server: Prometheus) -> None:
    offered = {}
    for text in variables(path):
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", text.replace("$namespace", "llm"))
        assert asked is not None
        offered[asked[2]] = server.api(f"label/{asked[2]}/values", **{"match[]": asked[1]})
    assert offered == {"namespace": ["llm"], "name": ["calm", "stormy"], "model_name": ["tiny"]}


def query_of(title: str) -> str:
    return next(query.text for query in QUERIES if query.where == f"picker: {title}")


def test_the_pool_that_is_chosen_is_the_one_that_is_shown(server: Prometheus) -> None:
    for title in ("Errors by code", "Failures of endpoints", "Bodies refused"):
        assert there(lambda title=title: server.ask(query_of(title), pool="stormy", namespace="llm")), title
        assert server.ask(query_of(title), pool="calm", namespace="llm") == [], title
    assert server.ask(query_of("Requests by model"), pool="calm", model_name="tiny")
    assert server.ask(query_of("Requests by model"), pool="calm", model_name="other") == []


def test_prometheus_takes_and_evaluates_every_rule(server: Prometheus) -> None:
    def states() -> dict[str, str]:
        return {rule["name"]: rule["health"] for group in server.api("rules")["groups"] for rule in group["rules"]}

    well = {rule["alert"]: "ok" for rule in alerts()}
    assert settles(well, states, PATIENCE_S) == well


FIRING = {"EPPHighErrorRatio", "EPPEndpointCooling", "EPPManyEndpointsCooling"}


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_no_alert_is_about_the_picker_that_is_well(rule: dict[str, str], server: Prometheus) -> None:
    def jobs() -> set[str]:
        return {series["metric"].get("job", "") for series in server.ask(rule["expr"])}

    if rule["alert"] in FIRING:
        assert settles({"stormy-epp"}, jobs, PATIENCE_S) == {"stormy-epp"}
    assert "calm-epp" not in jobs()
