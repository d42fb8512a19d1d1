"""The image as KServe runs it: its command line, a read-only root, no rights, nowhere to write."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.deploy.kserve import POOL, PORTS, Starts

from . import cluster
from .dockerfile import context, stages
from .image import Image, image, unable
from .processes import CONFIG, Child, child

pytestmark = pytest.mark.skipif(bool(unable()), reason=unable())

ROOT = Path(__file__).parents[2]
SECRETS = "/var/run/kserve/tls:/var/run/secrets/kubernetes.io/serviceaccount:/etc/pki/tls/certs"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
MOUNTED = "/mnt/endpoints.yaml"
ENDPOINTS = {"endpoints": [{"name": "engine", "address": "127.0.0.1", "port": "8000"}]}
# In one line and with sorted keys, as the controller writes what it was given.
TEXT = yaml.safe_dump(yaml.safe_load(CONFIG.replace("ENDPOINTS", MOUNTED)), default_flow_style=True, width=10_000)
FROM_A_FILE = (*POOL, *PORTS, "", "", "", "", "--config-text", TEXT)
"""KServe's words with TLS off, and a configuration that names a file of endpoints."""


def test_the_environment_is_built_by_the_python_that_runs_it() -> None:
    bases = {stage.base.removesuffix("-slim") for stage in stages((ROOT / "Dockerfile").read_text())}
    assert len(bases) == 1
    assert bases.pop().startswith("python:3.")


def test_only_what_the_wheel_is_made_of_is_copied() -> None:
    taken = context(ROOT)
    assert {path.parts[0] for path in taken if len(path.parts) > 1} == {"epp", "proto", "scorers", "sim"}
    assert {path.suffix for path in taken} == {"", ".md", ".proto", ".py", ".toml"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Finished and read-only, with an endpoints file mounted as kubelet mounts a ConfigMap."""
    folder = tmp_path_factory.mktemp("image")
    work, volume = folder / "work", folder / "volume"
    for part in (work, volume):
        part.mkdir()
    (volume / "endpoints.yaml").write_text(yaml.safe_dump(ENDPOINTS))
    with image(ROOT, work) as finished:
        finished.space.run("chroot", finished.root, "mkdir", "-p", ACCOUNT)
        finished.space.run("mount", "--bind", volume, finished.root / "mnt")
        finished.space.run("mount", "-o", "remount,bind,ro", finished.root / "mnt")
        finished.read_only()
        yield finished


@contextmanager
def running(made: Image, folder: Path, words: Sequence[str] = FROM_A_FILE, **environ: str) -> Iterator[Child]:
    """The container's process, once kubelet's probes are answered well."""
    command = made.command(*made.stage.entrypoint, *words, environ={"SSL_CERT_DIR": SECRETS, **environ})
    with child(command, folder / "picker.log") as started:
        started.line('"msg":"serving"')
        for service in ("liveness", "readiness"):
            made.space.run(sys.executable, "-m", "tests.e2e.probe", "9003", service, environ={"PYTHONPATH": str(ROOT)})
        yield started


def ended(started: Child, made: Image) -> int:
    """Exit status after what kubelet does at the end: preStop in the container, then SIGTERM."""
    made.run("/bin/sleep", "0.1")
    return started.end()


@pytest.fixture(scope="module")
def loaded(made: Image, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Where each module was loaded from, until the picker was ready and ended."""
    with running(made, tmp_path_factory.mktemp("verbose"), PYTHONVERBOSE="1") as started:
        assert ended(started, made) == 0
    found: list[str] = re.findall(r"^# code object from '?(.+?)'?$", started.log.read_text(), re.MULTILINE)
    assert len(found) > 500
    return found


def test_it_is_ready_on_a_read_only_root_and_ends_well(made: Image, tmp_path: Path) -> None:
    with running(made, tmp_path) as started:
        status = Path(f"/proc/{started.process.pid}/status").read_text()
        assert ended(started, made) == 0
    assert re.findall(r"^(Uid|Gid|CapEff|CapBnd|NoNewPrivs):\t(.+)$", status, re.MULTILINE) == [
        ("Uid", "65532\t65532\t65532\t65532"),
        ("Gid", "65532\t65532\t65532\t65532"),
        ("CapEff", "0" * 16),
        ("CapBnd", "0" * 16),
        ("NoNewPrivs", "1"),
    ]
    written = started.log.read_text()
    assert [line for line in written.splitlines() if not line.startswith("{")] == []
    assert not re.search(r"read-only|permission denied|warning", written, re.IGNORECASE), written


def test_it_writes_nothing_where_it_could(made: Image, tmp_path: Path) -> None:
    free = [made.root / "tmp", made.root / "home", made.root / "dev" / "shm"]
    for place in free:
        made.space.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", place)
    try:
        with running(made, tmp_path, HOME="/home", PYTHONDONTWRITEBYTECODE="") as started:
            made.run("/bin/sh", "-c", "touch /tmp/can && rm /tmp/can")
            assert ended(started, made) == 0
        assert made.space.run("find", *free, "-mindepth", "1") == ""
    finally:
        for place in free:
            made.space.run("umount", place)


def test_it_compiles_nothing_at_its_start(loaded: list[str]) -> None:
    assert [path for path in loaded if not path.endswith(".pyc")] == []


def test_its_modules_are_its_own(loaded: list[str]) -> None:
    assert [path for path in loaded if not path.startswith(("/app/venv/", "/usr/local/lib/python3."))] == []


def test_nothing_in_it_may_be_changed_by_its_user(made: Image) -> None:
    mine = ["(", "-user", made.stage.last("USER").partition(":")[0], "-o", "-perm", "-o+w", ")"]
    assert made.space.run("find", made.root / "app", *mine, "!", "-type", "l") == ""


@contextmanager
def api_server(made: Image, folder: Path) -> Iterator[dict[str, str]]:
    """A cluster with a pool and a ready pod beside the picker, its account mounted; the variables that tell of it."""
    place = cluster.Namespace(cluster.Server(folder, None), "llm")  # type: ignore[arg-type]  # only its name is used
    objects = cluster.there(place, cluster.pool(8000), cluster.running("a", "127.0.0.2"))
    (folder / "objects.yaml").write_text(yaml.safe_dump_all([*cluster.REVIEWS, *objects]))
    (folder / "rbac.json").write_text(json.dumps({cluster.TOKEN: (cluster.PICKER, [])}))
    words = ["--port=6443", f"--rbac={folder}/rbac.json", f"--tls-dir={folder}", f"--objects={folder}/objects.yaml"]
    words += [f"--crd={kind}" for kind in (cluster.POOLS, cluster.OBJECTIVES, cluster.REWRITES)]
    command = made.space.command(sys.executable, "-m", "tests.apiserver", *words)
    with child(command, folder / "apiserver.log", {"PYTHONPATH": str(ROOT)}) as server:
        server.line("^api server on ")
        account = folder / "account"
        account.mkdir()
        (account / "token").write_text(cluster.TOKEN)
        (account / "namespace").write_text("llm")
        (account / "ca.crt").write_text((folder / "ca.crt").read_text())
        with mounted(made, account):
            yield {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}


@contextmanager
def mounted(made: Image, account: Path) -> Iterator[None]:
    """Inside of the image, where a link may lead elsewhere than outside."""
    at = made.space.run("chroot", made.root, "realpath", ACCOUNT).strip()
    made.space.run("mount", "--bind", account, f"{made.root}{at}")
    try:
        yield
    finally:
        made.space.run("umount", f"{made.root}{at}")


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_serves_a_pool_as_kserve_starts_it_in_a_cluster(made: Image, tmp_path: Path, replicas: int) -> None:
    with (
        api_server(made, tmp_path) as environ,
        running(made, tmp_path, Starts(replicas=replicas).argv, **environ) as started,
    ):
        assert started.line(r'"msg":"endpoints changed".*"present":\["llm/a-rank-0"\]')
        assert ended(started, made) == 0
