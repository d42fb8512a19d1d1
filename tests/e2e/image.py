"""The image without a container engine: the Dockerfile's steps carried out on overlays of this machine's root.

Everything happens in a mount and network namespace of its own, on a tmpfs: nothing is left behind, the ports of the
manifests are free, and the only network is loopback. This machine stands in for the base image, with its Python where
the official image has it, in /usr/local. pip gets the packages of the environment that runs the tests.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .dockerfile import Stage, Step, context, stages

TOOLS = ("chroot", "gcc", "mount", "nsenter", "setpriv", "unshare")
PATH = "/usr/local/bin:/usr/bin:/bin"
PIP = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages" / "pip"
HOLD = """
import fcntl, socket, struct, sys
with socket.socket() as asked:
    fcntl.ioctl(asked, 0x8914, struct.pack("16sH", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
print("up", flush=True)
sys.stdin.read()
"""


class ImageError(Exception):
    """A step failed; the message holds what it wrote."""


def unable() -> str:
    """Why no image can be made here, "" if it can."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if os.geteuid() != 0:
        return "needs root: it mounts file systems in a namespace of its own"
    if missing:
        return f"needs {', '.join(missing)} (Debian packages coreutils, gcc, mount, util-linux)"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "needs the file system overlay, which this kernel does not offer"
    return ""


@dataclass(frozen=True)
class Namespace:
    """Mounts and a loopback of its own, as long as the process that holds it lives."""

    pid: int
    work: Path
    """A tmpfs inside."""

    def command(self, *words: str | Path) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--", *map(str, words)]

    def run(self, *words: str | Path, environ: Mapping[str, str] | None = None) -> str:
        """What it writes to stdout. Raises ImageError."""
        done = subprocess.run(self.command(*words), capture_output=True, text=True, check=False, env=environ)
        if done.returncode:
            raise ImageError(f"{shlex.join(map(str, words))}: {done.returncode}\n{done.stdout}{done.stderr}"[-4000:])
        return done.stdout

    def overlay(self, name: str, lower: Path | str, at: Path) -> Path:
        """What is written below `at` from now on goes to the folder that is returned; `lower` stays as it is."""
        upper, scratch = self.work / f"{name}-upper", self.work / f"{name}-scratch"
        self.run("mkdir", "-p", upper, scratch, at)
        self.run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={upper},workdir={scratch}", at)
        return upper


@contextmanager
def namespace(work: Path) -> Iterator[Namespace]:
    command = ["unshare", "--mount", "--net", "--propagation=private", sys.executable, "-c", HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        try:
            holder.stdout.readline()
            made = Namespace(holder.pid, work)
            made.run("mount", "-t", "tmpfs", "tmpfs", work)
            yield made
        finally:
            holder.stdin.close()


@dataclass(frozen=True)
class Image:
    """The last stage, finished."""

    space: Namespace
    stage: Stage
    root: Path
    written: Path
    """What was added to the base image's root."""

    def command(self, *words: str, environ: Mapping[str, str] | None = None) -> list[str]:
        """Start `words` as a container would: its user, its variables, no capabilities, no new privileges."""
        user, _, group = self.stage.last("USER").partition(":")
        variables = {"PATH": PATH, **self.stage.environ, **(environ or {})}
        rights = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        start = ["setpriv", f"--reuid={user}", f"--regid={group}", *rights, "env", "-i"]
        start += [f"--chdir={self.stage.last('WORKDIR')}", *(f"{key}={value}" for key, value in variables.items())]
        return self.space.command("chroot", self.root, *start, *words)

    def run(self, *words: str) -> None:
        """`words` to their end. Raises subprocess.CalledProcessError."""
        subprocess.run(self.command(*words), check=True)

    def read_only(self) -> None:
        """From now on nothing in it can be written."""
        self.space.run("mount", "-o", "remount,ro", self.root / "usr" / "local")
        self.space.run("mount", "-o", "remount,ro", self.root)


@contextmanager
def image(folder: Path, work: Path) -> Iterator[Image]:
    """The image of the Dockerfile in `folder`, made below `work`, an empty folder outside of it."""
    with namespace(work) as space:
        _make_wheels(space, folder)
        roots: dict[str, Path] = {}
        for number, stage in enumerate(stages((folder / "Dockerfile").read_text())):
            root, written = _base(space, f"stage{number}")
            for step in stage.steps:
                _carry_out(space, step, root, roots, folder)
            roots[stage.name] = root
        yield Image(space, stage, root, written)


def _make_wheels(space: Namespace, folder: Path) -> None:
    """By a process inside, where the tmpfs is."""
    script = "import sys, pathlib; from tests.e2e.wheelhouse import of_project, wheelhouse; "
    script += "wheelhouse(pathlib.Path(sys.argv[1]), of_project(pathlib.Path(sys.argv[2])))"
    environ = {**os.environ, "PYTHONPATH": str(folder)}
    space.run(sys.executable, "-c", script, space.work / "wheels", folder, environ=environ)


def _base(space: Namespace, name: str) -> tuple[Path, Path]:
    """The root of a base image, and the folder with what is added to it."""
    root = space.work / name
    written = space.overlay(f"{name}-root", "/", root)
    local = root / "usr" / "local"
    space.overlay(f"{name}-python", sys.base_prefix, local)
    for kernel in ("proc", "sys", "dev"):
        space.run("mount", "--rbind", f"/{kernel}", root / kernel)
    space.run("mount", "--bind", space.work / "wheels", root / "mnt")
    space.run("ln", "-sf", f"python3.{sys.version_info.minor}", local / "bin" / "python")
    script = 'rm -f "$1"; printf "#!/bin/sh\\nexec python %s \\"\\$@\\"\\n" "$2" >"$1"; chmod 755 "$1"'
    space.run("sh", "-c", script, "sh", local / "bin" / "pip", PIP)
    # A Python with a shared library looks for it where it was built, and there the image's user may not look.
    space.run("chroot", root, "/sbin/ldconfig")
    return root, written


def _carry_out(space: Namespace, step: Step, root: Path, roots: Mapping[str, Path], folder: Path) -> None:
    if step.word == "RUN":
        environ = {"PATH": PATH, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/mnt", "PIP_CONFIG_FILE": os.devnull}
        variables = [f"{key}={value}" for key, value in environ.items()]
        space.run("chroot", root, "env", "-i", *variables, "/bin/sh", "-c", step.text)
    elif step.word == "COPY":
        *options, source, target = step.text.split()
        if options:
            stage = options[0].removeprefix("--from=")
            space.run("cp", "-a", roots[stage] / source.lstrip("/"), root / target.lstrip("/"))
        else:
            _copy_context(space, folder, root / target.lstrip("/"))
    elif step.word == "WORKDIR":
        space.run("mkdir", "-p", root / step.text.lstrip("/"))


def _copy_context(space: Namespace, folder: Path, target: Path) -> None:
    script = 'mkdir -p "$1"; cd "$2"; target=$1; shift 2; exec cp --parents -- "$@" "$target"'
    space.run("sh", "-euc", script, "sh", target, folder, *context(folder))
