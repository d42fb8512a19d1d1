"""The picker in virtual time: its own pool, health, ledger and route, without the wire around them."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from epp.bodies import Parsers
from epp.bodies.parsed import Parsed, ResponseReader
from epp.exchange import Exchange
from epp.headers import Headers, Received
from epp.hooks import Hooks
from epp.observe import Trace
from epp.plan import Setup
from epp.plugins import Plugin
from epp.pool.health import Health
from epp.pool.ledger import Ledger
from epp.pool.table import Pool
from epp.route import Router
from epp.rules import Forward, Habits, Rules
from epp.types import Change, Decision, Endpoint, Outcome, Prompt, Reading, Refused, Request, Spent, Usage
from sim.clock import Clock
from sim.types import EngineSettings, Load
from sim.workload import Arrival

MODEL = "simulated"
SESSION_TOKEN = "x-session-token"
"""The response header that a client is to send back with its session's next request."""
_PIECE = b"."
_ANSWERED: Received = {":status": ("200",), "content-type": ("text/event-stream",)}


class Prompts:
    """A body that is nothing but the prompt: what making and reading JSON costs is no part of a simulation."""

    paths: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        model = headers["model"][0]
        return Parsed("completions", model=model, stream=True, prompts=(Prompt([body]),))

    def reader(self, content_type: str) -> ResponseReader:
        return Counted()


class Counted:
    """Reads an answer of which only the number of tokens is told, as its last piece."""

    events = 0
    complete = False

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._last = b""

    def feed(self, piece: bytes) -> None:
        self._last = piece

    def end(self) -> None:
        if self._last.isdigit():
            self.usage = Usage(completion_tokens=int(self._last))


def rules(setup: Setup, plugins: Sequence[Plugin]) -> Rules:
    """What requests are decided by. `plugins` are those with hooks; they remember, so each run needs new ones."""
    return Rules(setup, Parsers([Prompts()]), Hooks(plugins), setup.columns)


class Picker:
    """One picker before `endpoints`."""

    def __init__(
        self, rules: Rules, endpoints: Sequence[Endpoint], clock: Clock, *, seed: int, readings_only: bool = False
    ) -> None:
        self.pool = Pool()
        if readings_only:
            # What is charged reaches no column, so readings stay as they came.
            self.pool.ledger = Ledger(lambda *_: None)
        self.pool.apply(Change(tuple(endpoints)))
        self.watch = Watch()
        self._tokens: dict[str, str] = {}
        self._router = Router(
            rules,
            self.pool,
            Health(random.Random(seed)),
            observer=self.watch,
            rng=np.random.default_rng(seed),
            now=lambda: clock.now,
            # Plug-ins take no time: else one would be suspended because this machine was busy.
            clock=lambda: 0.0,
            habits=Habits(),
        )

    def pick(self, arrival: Arrival, name: str) -> tuple[Exchange, str]:
        """The request under way and the ip:port it goes to. Raises Refused."""
        headers: Received = {"x-request-id": (name,), "model": (arrival.lora or MODEL,)}
        if arrival.session:
            headers["x-session-id"] = (arrival.session,)
        if arrival.session in self._tokens:
            headers[SESSION_TOKEN] = (self._tokens[arrival.session],)
        exchange = Exchange(self._router)
        forward = exchange.pick(headers, {}, arrival.prompt, bodiless=False)
        if inspect.isawaitable(forward):
            # A slow signal takes no virtual time.
            forward = asyncio.run(_awaited(forward))
        return exchange, forward.destination.partition(",")[0]

    def began(self, exchange: Exchange, session: str) -> None:
        """The first piece of the answer is there."""
        told = exchange.head(_ANSWERED, {}, end=False)
        # One process: nothing has to be waited for.
        assert isinstance(told, tuple)
        to_set, _ = told
        if session and SESSION_TOKEN in to_set:
            self._tokens[session] = to_set[SESSION_TOKEN]
        exchange.piece(_PIECE, end=False)

    def ended(self, exchange: Exchange, tokens: int) -> None:
        exchange.piece(b"%d" % tokens, end=True)
        exchange.settle("natural")

    def failed(self, exchange: Exchange, status: int) -> None:
        """The engine answered with an error."""
        exchange.head({":status": (str(status),), "x-envoy-upstream-service-time": ("1",)}, {}, end=True)
        exchange.settle("natural")


def reading(load: Load, settings: EngineSettings) -> Reading:
    """What a scrape of an engine would tell."""
    return Reading(
        waiting=float(load.waiting),
        running=float(load.running),
        kv_usage=load.kv_usage,
        block_tokens=float(settings.block_size),
        num_blocks=float(settings.num_blocks),
        max_loras=float(settings.max_loras),
        running_loras=load.running_loras,
        waiting_loras=load.waiting_loras,
    )


async def _awaited(forward: Awaitable[Forward]) -> Forward:
    return await forward


@dataclass(slots=True)
class Watch:
    """An observer that keeps what makes a run doubtful: plug-ins that failed, votes that did not count."""

    flaws: Counter[str] = field(default_factory=Counter)

    def started(self, request: Request) -> Trace | None:
        return None

    def decided(self, request: Request, decision: Decision) -> None:
        for flaw in decision.flaws:
            self.flaws[f"{flaw.by}: {flaw.rule}{f' ({flaw.detail})' if flaw.detail else ''}"] += 1

    def hook_failed(self, plugin: str, error: BaseException) -> None:
        self.flaws[f"{plugin}: {error!r}"] += 1

    def decision_id(self, decision: Decision) -> str:
        return decision.request_id

    def refused(self, request: Request, refusal: Refused) -> None: ...
    def inflight(self, request: Request, endpoint: Endpoint, requests: int, tokens: float) -> None: ...
    def gaps(self, request: Request) -> Callable[[float], None]:
        return lambda gap_s: None

    def passed(self, wrapped: int, read: int) -> None: ...
    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None: ...
    def suspended(self, spent: Spent) -> None: ...

    def rewritten(self, request: Request, by: str) -> None: ...
    def failed(self, key: str, kind: str) -> None: ...
