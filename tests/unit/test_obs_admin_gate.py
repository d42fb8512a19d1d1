"""The metrics port with somebody who knows tokens: no page without one, wherever the request comes from."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from epp.kube.client import Api
from epp.kube.reviews import Reviewer, Verdict
from epp.obs.admin import Admin
from epp.obs.admin_gate import Authenticator
from epp.obs.decisions import Decisions
from tests.apiserver import ApiServer

HOST = "127.0.0.1"


@dataclass
class Doorman:
    """Lets in who says the name of the page."""

    asked: list[tuple[str, str]] = field(default_factory=list)

    async def check(self, path: str, authorization: str) -> Verdict:
        self.asked.append((path, authorization))
        return Verdict(200) if authorization == f"Bearer {path}" else Verdict(401, "say the page")


async def answers(authenticator: Authenticator, *asked: tuple[str, str, str]) -> list[tuple[int, str]]:
    """(status, text) of each (method, path, Authorization)."""
    admin = Admin(CollectorRegistry(), Decisions(), dict, plugins_state=dict, authenticator=authenticator)
    port = await admin.start(0, host=HOST)
    found = []
    async with aiohttp.ClientSession(f"http://{HOST}:{port}") as session:
        for method, path, authorization in asked:
            headers = {"Authorization": authorization} if authorization else {}
            async with session.request(method, path, headers=headers) as response:
                found.append((response.status, await response.text()))
    await admin.stop()
    return found


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/debug/", "/debug/config", "/debug/plugins/state", "/debug/pprof/heap", "/nothing"]
)
def test_no_page_is_shown_without_a_token_not_even_to_this_machine(path: str) -> None:
    assert asyncio.run(answers(Doorman(), ("GET", path, ""))) == [(401, "401: say the page\n")]


def test_who_is_let_in_sees_debug_pages_from_anywhere() -> None:
    assert asyncio.run(answers(Doorman(), ("GET", "/debug/config", "Bearer /debug/config"))) == [(200, "{}")]


def test_the_process_says_that_it_lives_without_asking_anybody() -> None:
    doorman = Doorman()
    assert asyncio.run(answers(doorman, ("GET", "/healthz", ""))) == [(200, "ok\n")]
    assert doorman.asked == []


def test_strangers_are_not_told_what_may_be_written() -> None:
    asked = [("POST", "/metrics", ""), ("POST", "/metrics", "Bearer /metrics")]
    assert [status for status, _ in asyncio.run(answers(Doorman(), *asked))] == [401, 405]


class AllButConfig:
    """Lets everybody see everything but one page."""

    async def check(self, path: str, authorization: str) -> Verdict:
        return Verdict(403, "no") if path == "/debug/config" else Verdict(200)


ODD = (
    "/debug/config",
    "/debug/../debug/config",
    "/metrics/../debug/config",
    "/debug/./config",
    "/debug/%63onfig",
    "/%64ebug/config",
    "/debug%2fconfig",
    "//debug/config",
    "/debug//config",
    "/debug/config/",
    "/DEBUG/config",
    "/debug/config;x",
    "/debug/config#x",
    "/metrics?path=/debug/config",
    "http://x/debug/config",
    "http://x//debug/config",
)


@pytest.mark.parametrize("asked", ODD)
def test_no_odd_spelling_shows_a_page_that_is_not_allowed(asked: str) -> None:
    with_tokens = Admin(CollectorRegistry(), Decisions(), lambda: "secret", authenticator=AllButConfig())
    without = Admin(CollectorRegistry(), Decisions(), lambda: "secret", may_debug=lambda request: False)
    assert "secret" not in asyncio.run(raw_get(with_tokens, asked))
    assert "secret" not in asyncio.run(raw_get(without, asked))


def test_the_page_itself_would_be_shown() -> None:
    assert "secret" in asyncio.run(raw_get(Admin(CollectorRegistry(), Decisions(), lambda: "secret"), ODD[0]))


async def raw_get(admin: Admin, target: str) -> str:
    """The answer to a request line as it stands, which clients would tidy up."""
    port = await admin.start(0, host=HOST)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await admin.stop()
    return answer.decode()


def test_a_scrape_with_the_token_of_prometheus_against_an_api_server(tmp_path: Path) -> None:
    delegator = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    scraper = [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]
    table = {"picker": ("epp", delegator), "scraper": ("prom", scraper)}

    async def run() -> list[int]:
        async with ApiServer(rbac=table) as server:
            api = await Api.connect({"KUBECONFIG": str(server.kubeconfig(tmp_path / "config", "picker"))})
            asked = [("GET", "/metrics", "Bearer scraper"), ("GET", "/debug/config", "Bearer scraper")]
            asked += [("GET", "/metrics", "Bearer guessed"), ("GET", "/metrics", "")]
            found = await answers(Reviewer(api), *asked)
            await api.close()
            return [status for status, _ in found]

    assert asyncio.run(run()) == [200, 403, 401, 401]
