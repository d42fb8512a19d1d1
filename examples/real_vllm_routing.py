"""Ready configurations before two real vLLM servers on CPU: `python -m examples.real_vllm_routing`.

Streamed chats through Envoy that share long beginnings, an open loop, the same for each configuration but for the
words, as the servers' caches stay filled. Needs what `make real-vllm` installs. Prints, and writes
benchmarks/results/routing_vllm.json.
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from benchmarks.machine import write

from .real_vllm import _stand, say
from .real_vllm_install import VERSION, vllm_environment
from .real_vllm_parts import BIN, LOOPBACK, START_S, Picker, free_port, part
from .real_vllm_site import Answer, Site, Stand, prompt

CONFIGS = ("default", "least-load", "recommended")
ROOT = Path(__file__).parents[1] / "config"
PREFIXES, WORDS, QUESTION_WORDS = 12, 700, 20
PER_S, LASTS_S = 8.0, 30.0


@contextmanager
def picker(stand: Stand, config: str) -> Iterator[Picker]:
    """With config/<config>.yaml and the two servers."""
    endpoints, file = stand.folder / "endpoints.yaml", stand.folder / f"{config}.yaml"
    servers = [{"name": server.name, "address": LOOPBACK, "port": server.port} for server in stand.servers]
    endpoints.write_text(yaml.safe_dump({"endpoints": servers}))
    tree = yaml.safe_load((ROOT / file.name).read_text())
    tree["plugins"].append({"type": "file-discovery", "parameters": {"path": str(endpoints)}})
    tree.setdefault("dataLayer", {})["discovery"] = {"pluginRef": "file-discovery"}
    file.write_text(yaml.safe_dump(tree))
    page = Picker(free_port())
    command: list[str | Path] = [BIN / "epp", "--config-file", file, "--emit-decision-id"]
    command += ["--metrics-endpoint-auth=false", f"--metrics-port={page.port}"]
    command += [f"--grpc-port={stand.grpc_port}", "--grpc-health-port=0"]
    with part(command, stand.folder / f"epp-{config}.log") as started:
        started.wait_until(lambda: page.answers("/healthz"), START_S)
        started.wait_until(lambda: page.total("llm_d_epp_ready_endpoints") == len(stand.servers), START_S)
        yield page


def questions(first: int) -> Iterator[tuple[float, str, int]]:
    """Moment, text, tokens to answer; `first` numbers the texts, and changes nothing else."""
    chance, at, own = random.Random(1), 0.0, first + PREFIXES
    weights = [1 / (1 + number) for number in range(PREFIXES)]
    while at < LASTS_S:
        shared = first + chance.choices(range(PREFIXES), weights)[0]
        yield at, f"{prompt(shared, WORDS)} {prompt(own, QUESTION_WORDS)}", chance.randint(8, 32)
        at, own = at + chance.expovariate(PER_S), own + 1


def answers(site: Site, first: int) -> list[Answer]:
    """Raises openai.APIError if one fails."""
    with ThreadPoolExecutor(128) as pool:
        began, asked = time.monotonic(), []
        for at, text, tokens in questions(first):
            time.sleep(max(0.0, began + at - time.monotonic()))
            asked.append(pool.submit(site.ask, text, stream=True, max_tokens=tokens))
    return [one.result() for one in asked]


def figures(found: Sequence[Answer]) -> dict[str, float]:
    p50, p90 = np.quantile([answer.first_s for answer in found], (0.5, 0.9))
    cached = sum(answer.cached_tokens for answer in found)
    prompts = sum(answer.usage.prompt_tokens for answer in found)
    busiest = max(Counter(answer.server for answer in found).values())
    return {
        "requests": len(found),
        "ttft_p50_ms": round(float(p50) * 1e3, 1),
        "ttft_p90_ms": round(float(p90) * 1e3, 1),
        "hit_share": round(cached / prompts, 3),
        "busiest_share": round(busiest / len(found), 3),
    }


def main() -> None:
    told: dict[str, object] = {"what": f"two vLLM {VERSION} servers on CPU, {PER_S:g} requests/s for {LASTS_S:g} s"}
    with tempfile.TemporaryDirectory(prefix="real-vllm-routing-") as name:
        venv = vllm_environment(say)
        with _stand(venv, Path(name)) as stand:
            # Kernels and allocators warm up with a first run that is not told.
            for number, config in enumerate(("random", *CONFIGS)):
                with picker(stand, config) as page:
                    found = figures(answers(Site(stand.envoy, page, stand.servers), number * 2000))
                say(f"{config}: {json.dumps(found)}")
                if number:
                    told[config] = found
    say(str(write("routing_vllm", told)))


if __name__ == "__main__":
    main()
