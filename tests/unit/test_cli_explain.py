"""`epp explain`: one decision from files, live readings or both, as a table or as JSON."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from epp.cli import main
from tests.config_kit import HEAD

Captured = pytest.CaptureFixture[str]
CHAT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Tell me a story."}]})
ENDPOINTS = """
endpoints:
- {name: a, address: 10.0.0.1, port: 8000, load: {waiting: 9, running: 4, kv_usage: 0.5}}
- {name: b, address: 10.0.0.2, port: 8000, load: {waiting: 1, running: 4, kv_usage: 0.5, inflight: 3, loras: [m]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "body.json").write_text(CHAT)
    (tmp_path / "endpoints.yaml").write_text(ENDPOINTS)
    return tmp_path


def explained(folder: Path, *words: str, config: str = "") -> int:
    """The exit code of `epp explain` on the files of `folder`."""
    if config:
        (folder / "config.yaml").write_text(HEAD + config)
        words = ("--config", str(folder / "config.yaml"), *words)
    files = ["--endpoints", str(folder / "endpoints.yaml"), "--body", str(folder / "body.json")]
    return main(["explain", *files, *words])


def run_of(capsys: Captured) -> dict[str, dict[str, object]]:
    """Candidate → its row in what `--json` printed."""
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    return {row["endpoint"]: row for row in run["candidates"]}


def test_the_table_shows_every_vote_and_who_is_picked(folder: Path, capsys: Captured) -> None:
    assert explained(folder) == 0
    out, err = capsys.readouterr()
    assert "▶ default/b" in out
    assert "picked default/b at 10.0.0.2:8000" in out
    assert err == ""


def test_the_load_of_the_file_is_what_plug_ins_read(folder: Path, capsys: Captured) -> None:
    config = "plugins: [{type: load-aware-scorer, parameters: {threshold: 10}}, {type: active-request-scorer}]"
    assert explained(folder, "--json", config=config) == 0
    rows = run_of(capsys)
    assert rows["default/a"]["votes"] == {"load-aware-scorer": 0.05, "active-request-scorer": 1.0}
    assert rows["default/b"]["votes"] == {"load-aware-scorer": 0.45, "active-request-scorer": 0.0}


def test_adapters_of_the_file_are_seen(folder: Path, capsys: Captured) -> None:
    assert explained(folder, "--json", config="plugins: [{type: lora-affinity-scorer}]") == 0
    assert run_of(capsys)["default/b"]["votes"] == {"lora-affinity-scorer": 1.0}


def test_headers_and_path_are_those_of_the_request(folder: Path, capsys: Captured) -> None:
    config = "plugins: [{type: header-based-testing-filter}]"
    header = "Test-EPP-Endpoint-Selection: 10.0.0.1"
    assert explained(folder, "--header", header, "--json", config=config) == 0
    assert list(run_of(capsys)) == ["default/a"]


def test_a_refused_request_ends_with_1_and_says_why(folder: Path, capsys: Captured) -> None:
    assert explained(folder, config="plugins: [{type: prefill-filter}]") == 1
    out = capsys.readouterr().out
    assert "left out by prefill-filter" in out
    assert out.count("refused: 429 no endpoints available") == 1


def test_a_body_that_no_engine_would_take_is_refused_before_any_decision(folder: Path, capsys: Captured) -> None:
    (folder / "body.json").write_text('{"model": "m"}')
    assert explained(folder) == 1
    assert capsys.readouterr().out.startswith("refused: 400 ")
    assert explained(folder, "--json") == 1
    assert json.loads(capsys.readouterr().out)["refused"]["status"] == 400


def test_without_endpoints_the_request_is_refused(folder: Path, capsys: Captured) -> None:
    (folder / "endpoints.yaml").write_text("endpoints: []")
    assert explained(folder) == 1
    assert "refused: 503 " in capsys.readouterr().out


def test_endpoints_without_a_load_are_named(folder: Path, capsys: Captured) -> None:
    with (folder / "endpoints.yaml").open("a") as file:
        file.write("- {name: c, address: 10.0.0.3, port: 8000, load: {inflight: 1}}\n")
    assert explained(folder) == 0
    told = "warning: nothing is known of the load of default/c: taken as the mean of the others\n"
    assert capsys.readouterr().err == told


def test_the_seed_breaks_ties_the_same_way_each_time(folder: Path, capsys: Captured) -> None:
    picked = set()
    for seed in ("1", "2", "3", "4", "5", "6"):
        explained(folder, "--json", "--seed", seed, config="plugins: [{type: random-picker}]")
        first = json.loads(capsys.readouterr().out)["picked"]
        explained(folder, "--json", "--seed", seed, config="plugins: [{type: random-picker}]")
        assert json.loads(capsys.readouterr().out)["picked"] == first
        picked.add(first[0])
    assert picked == {"default/a", "default/b"}


def test_the_endpoints_may_be_those_the_configuration_names(folder: Path, capsys: Captured) -> None:
    config = folder / "config.yaml"
    path = folder / "endpoints.yaml"
    config.write_text(
        HEAD + f"plugins: [{{type: file-discovery, parameters: {{path: {path}}}}}, {{type: queue-scorer}}]\n"
        "dataLayer: {discovery: {pluginRef: file-discovery}}"
    )
    assert main(["explain", "--config", str(config), "--body", str(folder / "body.json")]) == 0
    assert "picked default/b" in capsys.readouterr().out


BAD = {
    "an endpoint": ("endpoints: [{name: a, address: '?', port: 1}]", "endpoints.yaml: endpoints[0] (a): address '?'"),
    "a load": ("endpoints: [{name: a, address: 10.0.0.1, port: 1, load: {queue: 1}}]", "endpoints[0] (a).load: "),
    "the file": ("hello", "endpoints.yaml: there is no list named endpoints"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=list(BAD))
def test_a_bad_endpoints_file_is_told(text: str, told: str, folder: Path, capsys: Captured) -> None:
    (folder / "endpoints.yaml").write_text(text)
    assert explained(folder) == 2
    assert told in capsys.readouterr().err


def test_a_bad_header_is_told(folder: Path, capsys: Captured) -> None:
    assert explained(folder, "--header", "nonsense") == 2
    assert "--header 'nonsense': write it as 'name: value'" in capsys.readouterr().err


@contextmanager
def engine(page: str) -> Iterator[int]:
    """The port of a server that answers every GET with `page`."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            """Nothing: the tests look at stderr."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def page(waiting: int) -> str:
    return (
        f"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting {waiting}\n"
        "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n"
        "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0.5\n"
    )


def test_live_readings_take_the_place_of_the_file_s(folder: Path, capsys: Captured) -> None:
    with engine(page(7)) as one, engine(page(2)) as other:
        (folder / "endpoints.yaml").write_text(f"""
endpoints:
- {{name: a, address: 127.0.0.1, port: {one}, load: {{waiting: 0}}}}
- {{name: b, address: 127.0.0.1, port: {other}}}
""")
        config = "plugins: [{type: load-aware-scorer, parameters: {threshold: 10}}]"
        assert explained(folder, "--scrape", "--json", config=config) == 0
    rows = run_of(capsys)
    assert {key: row["votes"] for key, row in rows.items()} == {
        "default/a": {"load-aware-scorer": 0.15},
        "default/b": {"load-aware-scorer": 0.4},
    }


def test_engines_that_cannot_be_read_are_told_and_the_rest_is_explained(folder: Path, capsys: Captured) -> None:
    with engine("nothing of use") as port:
        (folder / "endpoints.yaml").write_text(f"endpoints: [{{name: a, address: 127.0.0.1, port: {port}}}]")
        assert explained(folder, "--scrape") == 0
    out, err = capsys.readouterr()
    assert "picked default/a" in out
    assert "nothing is known of the load of default/a" in err
