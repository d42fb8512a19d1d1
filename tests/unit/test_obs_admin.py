import asyncio
import json
import ssl
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from epp.extproc.tls import Certificates, self_signed, server_context
from epp.obs.admin import Admin, from_loopback
from epp.obs.decisions import Decisions
from epp.obs.metrics import Metrics
from epp.obs.profiling import Profiling
from epp.testing import endpoints
from epp.types import Decision, Request, Run

HOST = "127.0.0.1"


def ask_all(*paths: str, admin: Admin | None = None, **headers: str) -> list[tuple[int, str, str]]:
    """(status, content type, text) of each path."""

    async def run() -> list[tuple[int, str, str]]:
        served = admin or Admin(CollectorRegistry(), Decisions(), dict)
        port = await served.start(0, host=HOST)
        try:
            async with aiohttp.ClientSession(f"http://{HOST}:{port}", headers=headers) as session:
                return [await ask(session, path) for path in paths]
        finally:
            await served.stop()

    return asyncio.run(run())


async def ask(session: aiohttp.ClientSession, path: str) -> tuple[int, str, str]:
    async with session.get(path) as response:
        return response.status, response.headers["Content-Type"], await response.text()


def measured() -> Admin:
    registry = CollectorRegistry()
    Metrics(registry).held(7)
    return Admin(registry, Decisions(), dict)


def decided(*names: str) -> Admin:
    decisions = Decisions()
    pods = endpoints(waiting=[0, 0]).records
    for at, name in enumerate(names):
        made = Decision(name, "base", float(at), 2, primary="default")
        made.runs["default"] = Run("default", pods, picked=pods[:1])
        decisions.record(Request(id=name), made)
    return Admin(CollectorRegistry(), decisions, dict)


def test_metrics_are_told_as_text() -> None:
    ((status, kind, text),) = ask_all("/metrics", admin=measured())
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    held = [family for family in text_string_to_metric_families(text) if family.name == "llm_d_epp_held_bytes"]
    assert held[0].samples[0].value == 7


def test_metrics_are_told_as_openmetrics_to_who_accepts_it() -> None:
    ((_, kind, text),) = ask_all("/metrics", admin=measured(), Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_metrics_are_compressed_for_who_accepts_it(encoding: str) -> None:
    async def run() -> tuple[str, bytes]:
        admin = measured()
        port = await admin.start(0, host=HOST)
        async with (
            aiohttp.ClientSession(auto_decompress=False, headers={"Accept-Encoding": encoding}) as session,
            session.get(f"http://{HOST}:{port}/metrics") as response,
        ):
            answer = response.headers.get("Content-Encoding", "identity"), (await response.read())[:2]
        await admin.stop()
        return answer

    assert asyncio.run(run()) == (encoding, b"\x1f\x8b" if encoding == "gzip" else b"# ")


def test_decisions_are_shown_newest_first() -> None:
    answers = ask_all("/debug/decisions", "/debug/decisions?limit=1", admin=decided("a", "b", "a"))
    assert [status for status, _, _ in answers] == [200, 200]
    assert answers[0][1].startswith("application/json")
    shown = [json.loads(text) for _, _, text in answers]
    assert [[decision["request"]["id"] for decision in some] for some in shown] == [["a", "b", "a"], ["a"]]


def test_decisions_of_one_request_are_shown() -> None:
    ((_, _, text),) = ask_all("/debug/decisions?request_id=b", admin=decided("a", "b", "a"))
    assert [decision["request"]["id"] for decision in json.loads(text)] == ["b"]


def test_one_decision_is_shown_by_its_id() -> None:
    name = Decisions.id_of(Decision("b", "base", 1.0, 2))
    ((status, _, text),) = ask_all(f"/debug/decisions?id={name}", admin=decided("a", "b", "a"))
    assert (status, json.loads(text)["id"]) == (200, name)


def test_configuration_is_shown_as_json_or_as_it_is_written() -> None:
    (structured,) = ask_all("/debug/config", admin=Admin(CollectorRegistry(), Decisions(), lambda: {"a": [1]}))
    (written,) = ask_all("/debug/config", admin=Admin(CollectorRegistry(), Decisions(), lambda: "a: [1]\n"))
    assert (structured[2], written[2]) == ('{"a":[1]}', "a: [1]\n")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/healthz", 200, "ok\n"),
        ("/debug/nothing", 404, "404: nothing at /debug/nothing; have: /metrics, /healthz, /debug/decisions"),
        ("/metrics/", 404, "404: nothing at /metrics/"),
        ("/debug/decisions?limit=0", 400, "400: limit=0: it must be a number from 1 to 1000\n"),
        ("/debug/decisions?limit=x", 400, "400: limit=x"),
        ("/debug/decisions?id=x", 404, "404: no decision 'x' among the last 0"),
        ("/debug/pprof/", 200, "/debug/pprof/profile?seconds=10"),
        ("/debug/pprof/profile?seconds=0", 400, "400: seconds=0: it must be above 0 and at most 60\n"),
        ("/debug/pprof/profile?seconds=nan", 400, "400: seconds=nan"),
        ("/debug/pprof/profile?seconds=0.01", 200, "function calls"),
        ("/debug/pprof/heap", 404, "start the picker with PYTHONTRACEMALLOC=1\n"),
    ],
)
def test_answers(path: str, status: int, words: str) -> None:
    ((got, _, text),) = ask_all(path)
    assert got == status
    assert words in text


def test_state_is_shown_as_it_is_at_that_moment() -> None:
    seen = iter([{"plugins": {}}, {"plugins": {"a": {"state": [1, 2.5]}}}])
    admin = Admin(CollectorRegistry(), Decisions(), dict, plugins_state=lambda: next(seen))
    first, second = ask_all("/debug/plugins/state", "/debug/plugins/state", admin=admin)
    assert first == (200, "application/json", '{"plugins":{}}')
    assert second[2] == '{"plugins":{"a":{"state":[1,2.5]}}}'


@pytest.mark.parametrize(("name", "path"), [("endpoints", "/debug/endpoints"), ("kubernetes", "/debug/kubernetes")])
def test_a_page_is_there_if_somebody_tells_what_it_shows(name: str, path: str) -> None:
    told = Admin(CollectorRegistry(), Decisions(), dict, **{name: lambda: [{"at": name}]})
    ((status, kind, text),) = ask_all(path, admin=told)
    assert (status, kind, json.loads(text)) == (200, "application/json", [{"at": name}])
    ((missing, _, text),) = ask_all(path)
    assert missing == 404
    assert f"{path}," not in text


@pytest.mark.parametrize("path", ["/", "/debug", "/debug/"])
def test_the_index_lists_every_page_with_what_it_shows(path: str) -> None:
    admin = Admin(CollectorRegistry(), Decisions(), dict, pprof=False, kubernetes=dict)
    ((status, _, text),) = ask_all(path, admin=admin)
    assert status == 200
    listed = [line.split()[0] for line in text.splitlines()]
    assert listed == ["/metrics", "/healthz", "/debug/decisions", "/debug/config", "/debug/kubernetes"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/debug/plugins/state", "/nothing"])
def test_pages_are_read_and_nothing_else(method: str, path: str) -> None:
    async def run() -> tuple[int, str, str]:
        admin = Admin(CollectorRegistry(), Decisions(), dict, plugins_state=dict)
        port = await admin.start(0, host=HOST)
        async with aiohttp.request(method, f"http://{HOST}:{port}{path}") as response:
            answer = response.status, response.headers["Allow"], await response.text()
        await admin.stop()
        return answer

    assert asyncio.run(run()) == (405, "GET, HEAD", f"405: {method} is not served here; use GET, HEAD\n")


def test_head_tells_the_headers_alone() -> None:
    async def run() -> tuple[int, str, str]:
        admin = measured()
        port = await admin.start(0, host=HOST)
        async with aiohttp.request("HEAD", f"http://{HOST}:{port}/metrics") as response:
            answer = response.status, response.headers["Content-Type"], await response.text()
        await admin.stop()
        return answer

    assert asyncio.run(run()) == (200, "text/plain; version=0.0.4; charset=utf-8", "")


def test_one_profile_is_taken_at_a_time() -> None:
    async def run() -> list[int]:
        profiling = Profiling()
        asked = make_mocked_request("GET", "/debug/pprof/profile?seconds=0.01")
        both = await asyncio.gather(profiling.profile(asked), profiling.profile(asked))
        return [response.status for response in (*both, await profiling.profile(asked))]

    assert asyncio.run(run()) == [200, 409, 200]


def test_without_pprof_there_are_no_profiles() -> None:
    ((status, _, _),) = ask_all("/debug/pprof/", admin=Admin(CollectorRegistry(), Decisions(), dict, pprof=False))
    assert status == 404


def test_debug_pages_are_not_for_strangers() -> None:
    admin = Admin(CollectorRegistry(), Decisions(), dict, may_debug=lambda request: False)
    pages = ("/debug/decisions", "/debug/config", "/debug/pprof/", "/debug/pprof/profile", "/debug/", "/debug/nothing")
    *debug, metrics, index = ask_all(*pages, "/metrics", "/", admin=admin)
    assert [status for status, _, _ in debug] == [403] * 6
    assert index[0] == 200
    assert debug[0][2] == (
        "403: /debug/decisions is shown only to this machine; forward the port and ask through localhost\n"
    )
    assert metrics[0] == 200


@pytest.mark.parametrize(
    ("peer", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("", False),
        (None, False),
    ],
)
def test_who_is_on_this_machine(peer: str | None, here: bool) -> None:
    assert from_loopback(make_mocked_request("GET", "/").clone(remote=peer)) is here  # type: ignore[arg-type]


def test_it_is_served_over_tls_with_the_certificate_in_force(tmp_path: Path) -> None:
    now = [0.0]
    pairs = [self_signed(datetime(2026, 1, 1, tzinfo=UTC)) for _ in range(2)]

    def write(pair: int) -> None:
        (tmp_path / "tls.key").write_bytes(pairs[pair].key)
        (tmp_path / "tls.crt").write_bytes(pairs[pair].chain)

    async def run() -> list[bytes]:
        write(0)
        context = server_context(Certificates(str(tmp_path), reload=True, clock=lambda: now[0]))
        admin = Admin(CollectorRegistry(), Decisions(), dict)
        port = await admin.start(0, host=HOST, tls=context)
        shown = [(await asyncio.to_thread(ssl.get_server_certificate, (HOST, port))).encode()]
        write(1)
        now[0] = 1.0
        shown.append((await asyncio.to_thread(ssl.get_server_certificate, (HOST, port))).encode())
        await admin.stop()
        return shown

    assert asyncio.run(run()) == [pair.chain for pair in pairs]


def test_a_port_that_is_taken_is_an_error_at_start() -> None:
    async def run() -> None:
        first, second = Admin(CollectorRegistry(), Decisions(), dict), Admin(CollectorRegistry(), Decisions(), dict)
        port = await first.start(0, host=HOST)
        try:
            with pytest.raises(OSError, match="in use"):
                await second.start(port, host=HOST)
        finally:
            await first.stop()

    asyncio.run(run())
