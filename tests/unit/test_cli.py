"""The command line: which words are commands, what they print where, and how they end."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from epp import __version__
from epp.cli import main
from epp.compiled import compiled
from epp.config.yaml import read
from tests.config_kit import HEAD
from tests.unit.reload_kit import modules_forgotten

Captured = pytest.CaptureFixture[str]
CONFIG = HEAD + "plugins: [{type: queue-scorer}, {type: kv-cache-scorer}]\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_check_prints_the_resolved_file_on_stdout_and_warnings_on_stderr(config: str, capsys: Captured) -> None:
    assert main(["check", config]) == 0
    out, err = capsys.readouterr()
    assert [entry["name"] for entry in read(out).value["plugins"]][:2] == ["queue-scorer", "kv-cache-scorer"]
    assert (
        err == "warning: plugins[1].type: kv-cache-scorer is the old name of kv-cache-utilization-scorer; write that\n"
    )


def test_check_reads_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CONFIG.encode())))
    assert main(["check", "-"]) == 0
    assert "type: queue-scorer" in capsys.readouterr().out


def test_what_check_prints_passes_it_and_comes_out_the_same(config: str, tmp_path: Path, capsys: Captured) -> None:
    main(["check", config])
    again = tmp_path / "again.yaml"
    again.write_text(capsys.readouterr().out)
    assert main(["check", str(again)]) == 0
    out, err = capsys.readouterr()
    assert (read(out).value, err) == (read(again.read_text()).value, "")


WRONG = {
    "no command": (["chekc"], "epp: no command 'chekc'; did you mean check?\n"),
    "nothing like one": (["zzz"], "epp: no command 'zzz'; see epp --help\n"),
    "no file": (["check", "/nowhere.yaml"], "epp: /nowhere.yaml: can't be read: No such file or directory\n"),
    "no argument": (["check"], "epp: the following arguments are required: file; see epp check --help\n"),
    "an unknown flag": (["check", "x", "--y"], "epp: unrecognized arguments: --y; see epp check --help\n"),
    "a flag of serve": (["--gprc-port", "1"], "epp: unknown flag --gprc-port; did you mean --grpc-port"),
    "no such type": (["plugins", "queue-scoer"], "epp: 'queue-scoer' is no plug-in type; did you mean queue-scorer"),
    "an absent type": (["plugins", "dcgm-extractor"], "epp: 'dcgm-extractor' is known upstream but not offered here"),
    "an idle type": (["plugins", "models-data-source"], "epp: 'models-data-source' is accepted in configurations"),
    "no endpoints": (["explain", "--body", "-"], "epp: no endpoints: give --endpoints FILE, or a configuration"),
    "no body": (["explain", "--endpoints", "x"], "epp: the following arguments are required: --body"),
    "nothing to serve": (["serve"], "epp: either --pool-name or --endpoint-selector must be set"),
    "nothing to serve, by flags": (["", "-v4"], "epp: either --pool-name or --endpoint-selector must be set"),
    "a bad configuration": (
        ["--config-text", "kind: EndpointPickerConfig"],
        "epp: apiVersion: missing; write apiVersion: llm-d.ai/v1alpha1\n",
    ),
    "a configuration that is not there": (["--config-file=/nowhere"], "epp: /nowhere: can't be read: No such file"),
}


@pytest.mark.parametrize(("words", "told"), WRONG.values(), ids=list(WRONG))
def test_what_cannot_be_done_is_one_message_on_stderr_and_ends_with_2(
    words: list[str], told: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.startswith(told)) == ("", True), err
    assert err.count("\n") == 1


def test_a_bad_configuration_is_told_with_file_path_and_line(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + "plugins:\n- typ: queue-scorer\n")
    assert main(["check", str(path)]) == 2
    assert f"epp: {path}: plugins[0].typ (line 4): unknown key; did you mean type?" in capsys.readouterr().err


def test_a_file_that_is_not_text_is_told(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    assert main(["check", str(path)]) == 2
    assert capsys.readouterr().err == f"epp: {path}: is not UTF-8 text\n"


def test_experimental_plug_ins_need_the_flag(tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + "plugins: [{type: session-affinity-scorer}]")
    assert main(["check", str(path)]) == 2
    assert main(["check", "--allow-experimental-plugins", str(path)]) == 0


EVEN = """\
import numpy as np
from epp import Endpoints, Scores

def even_more(endpoints: Endpoints) -> Scores:
    return np.ones(len(endpoints))
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[str]:
    """A directory with one plug-in file."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "fair.py").write_text(EVEN)
    with modules_forgotten():
        yield str(tmp_path / "plugins")


def test_plug_in_files_are_known_to_check(plugins: str, tmp_path: Path, capsys: Captured) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(HEAD + "plugins: [{type: even-more}]")
    assert main(["check", "--plugins-path", plugins, str(path)]) == 0
    assert main(["check", str(path)]) == 2
    assert "plugins[0].type (line 3): 'even-more' is no plug-in type" in capsys.readouterr().err


def test_plug_in_files_are_listed_with_where_they_are(plugins: str, capsys: Captured) -> None:
    assert main(["plugins", f"--plugins-path={plugins}", "even-more"]) == 0
    assert capsys.readouterr().out.split() == ["even-more", "[scorer]", "from", f"{plugins}/fair.py"]


def test_plug_in_files_vote_in_explain(plugins: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "c.yaml").write_text(HEAD + "plugins: [{type: even-more}]")
    (tmp_path / "e.yaml").write_text("endpoints: [{name: a, address: 10.0.0.1, port: 8000}]")
    (tmp_path / "body").write_text('{"model": "m", "prompt": "Hello"}')
    files = [f"--{flag}={tmp_path / name}" for flag, name in [("config", "c.yaml"), ("endpoints", "e.yaml")]]
    words = ["explain", *files, f"--body={tmp_path / 'body'}", "--path=/v1/completions", "--plugins-path", plugins]
    assert main(words) == 0
    assert "even-more" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["check", "c.yaml"], ["plugins"], ["serve"]], ids=str)
def test_a_plug_in_file_that_can_not_be_used_is_one_message(
    command: list[str], plugins: str, capsys: Captured, tmp_path: Path
) -> None:
    (tmp_path / "plugins" / "fair.py").write_text("\n1 / 0\n")
    assert main([*command, "--plugins-path", plugins]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"epp: {plugins}/fair.py:2: its import raised ZeroDivisionError")
    assert err.count("\n") == 1


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_commands_and_flags(word: str, capsys: Captured) -> None:
    assert main([word]) == 0
    out = capsys.readouterr().out
    assert "epp check FILE" in out
    assert "--config-file" in out


def test_help_is_found_among_other_flags(capsys: Captured) -> None:
    assert main(["--grpc-port", "9002", "--help"]) == 0
    assert "epp check FILE" in capsys.readouterr().out


def test_a_command_has_help_of_its_own(capsys: Captured) -> None:
    assert main(["explain", "--help"]) == 0
    assert "Exit code 0 = an endpoint is picked" in capsys.readouterr().out


def test_the_version_is_told(capsys: Captured) -> None:
    assert main(["--version"]) == 0
    how = "compiled" if compiled() else "not compiled"
    assert capsys.readouterr().out == f"epp {__version__} ({how})\n"


def test_nothing_reads_grpc_before_its_environment_is_set() -> None:
    code = "import sys, epp.cli; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("module", ["epp.app", "epp.workers.edge"])
def test_a_process_holds_no_library_that_it_was_not_asked_for(module: str) -> None:
    """grpcio is for its transport, OpenTelemetry for an exporter, and the Kubernetes client for a cluster."""
    code = f"import sys, {module}; print(*({{'grpc', 'opentelemetry', 'kubernetes'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == []


def test_the_parent_of_workers_holds_nothing_that_serves() -> None:
    code = "import sys, epp.workers.parent; print(*[name for name in sys.modules if name.startswith('epp.extproc')])"
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.split() == []


def test_a_reader_that_has_seen_enough_ends_it_quietly() -> None:
    command = f"{sys.executable} -c 'import epp.cli; epp.cli.main([\"plugins\"])' | head -1"
    ended = subprocess.run(["/bin/sh", "-c", command], check=False, capture_output=True, text=True)
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


MANIFESTS = {
    "good": (
        "{apiVersion: llm-d.ai/v1alpha2, kind: InferenceObjective, metadata: {name: a}, spec: {priority: 1}}",
        0,
        "",
    ),
    "of another kind": (
        "{kind: Pod, metadata: {name: a}}",
        0,
        "warning: FILE: document 1 (Pod/a): kind 'Pod' is not read",
    ),
    "broken": (
        "{apiVersion: llm-d.ai/v1alpha2, kind: InferenceObjective, metadata: {name: a}, spec: {prio: 1}}",
        2,
        "epp: FILE: document 1 (InferenceObjective/a): spec has no field 'prio'; did you mean priority?\n",
    ),
    "no YAML": ("kind: [\n", 2, "epp: FILE: line 2: not YAML: "),
    "not there": (
        None,
        0,
        "warning: FILE: is not here, so what it says is not checked; give it with --manifests FILE\n",
    ),
}


@pytest.mark.parametrize(("text", "code", "said"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_check_reads_the_manifests_that_the_configuration_names(
    text: str | None, code: int, said: str, tmp_path: Path, capsys: Captured
) -> None:
    file, path = tmp_path / "m.yaml", tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    parameters = f"{{path: /nowhere.yaml, manifestsPath: {file}}}"
    path.write_text(
        HEAD + f"plugins: [{{type: file-discovery, parameters: {parameters}}}, {{type: queue-scorer}}]\n"
        "dataLayer: {discovery: {pluginRef: file-discovery}}"
    )
    assert main(["check", str(path)]) == code
    assert capsys.readouterr().err.startswith(said.replace("FILE", str(file), 1))


def test_check_reads_the_manifests_it_is_given(config: str, tmp_path: Path, capsys: Captured) -> None:
    assert main(["check", config, "--manifests", str(tmp_path / "m.yaml")]) == 2
    assert "m.yaml: can't be read: No such file or directory" in capsys.readouterr().err
