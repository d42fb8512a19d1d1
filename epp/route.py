"""The life of a request: admit, schedule, charge, settle. One Router per pool, one Exchange per request.

The common way from the last body piece to the answer is synchronous; only a slow signal makes `pick` a coroutine.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import numpy as np

from epp import headers as names
from epp.bodies.parsed import Parsed, Parser
from epp.bodies.registry import request_path
from epp.bodies.rewrite import set_model
from epp.exchange import Exchange
from epp.headers import Headers, Metadata
from epp.observe import Observer
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.profiles import Given, Slow, Wait, any_endpoint, decide
from epp.rewrites import Steering
from epp.rules import Forward, Habits, Rules
from epp.suspension import SLOW_S, Suspensions, Worked, thread_worked
from epp.types import Decision, Refused, Request
from epp.waiting import settled

LOAD_REPORT_S = 1.0
"""An endpoint is asked for its load in a response header at most this often."""
SPARED_PROMPT_BYTES = 4
"""Bytes of a body that count as a token where no plug-in counts tokens."""


class Router:
    """Decides where requests go and keeps the books: ledger, health, suspensions."""

    def __init__(
        self,
        rules: Rules,
        pool: Pool,
        health: Health,
        *,
        observer: Observer,
        rng: np.random.Generator,
        now: Callable[[], float],
        clock: Callable[[], float],
        worked: Callable[[], Worked] = thread_worked,
        habits: Habits,
    ) -> None:
        self.rules = rules
        self.pool = pool
        self.health = health
        self.observer = observer
        self.now = now
        self.habits = habits
        self.suspensions = Suspensions()
        self.steering = Steering()
        """Swapped as a whole when objectives or rewrites change."""
        self._rng = rng
        self._clock = clock
        self._worked = worked
        self._worked_before = worked()
        """What the thread had done when the latest decision began."""
        self._asked_load: dict[str, float] = {}

    def open(self) -> Exchange:
        """A request's headers have arrived."""
        return Exchange(self, self.rules, self.now())

    def pick(
        self, exchange: Exchange, headers: Headers, metadata: Metadata, body: bytes | None, bodiless: bool
    ) -> Forward | Awaitable[Forward]:
        """Choose. Raises Refused, or returns a coroutine that may."""
        request = exchange.request = self._request(headers, exchange.received_at)
        exchange.trace = self.observer.started(request)
        try:
            if bodiless:
                return self._bodiless(exchange, metadata)
            parsed = self._parse(exchange, body)
            self._arrive(exchange)
            return self._decide(exchange, metadata, parsed, body)
        except Refused as refusal:
            exchange.refuse(refusal)
            raise

    def _request(self, headers: Headers, received_at: float) -> Request:
        given = headers.get(names.REQUEST_ID)
        request_id = (given[-1] if given else "") or str(uuid.uuid4())
        if names.STEERING.isdisjoint(headers):
            # As nearly all requests: nine look-ups spared.
            priority = self.steering.objectives.get("", 0)
            path = request_path(headers)
            return Request(id=request_id, path=path, headers=headers, priority=priority, received_at=received_at)
        objective = names.first(headers, names.OBJECTIVE)
        return Request(
            id=request_id,
            path=request_path(headers),
            headers=headers,
            objective=objective,
            priority=self.steering.objectives.get(objective, 0),
            fairness_id=names.first(headers, names.FAIRNESS),
            slo_ttft_ms=names.number(headers, names.SLO_TTFT),
            slo_tpot_ms=names.number(headers, names.SLO_TPOT),
            received_at=received_at,
        )

    def _parse(self, exchange: Exchange, body: bytes | None) -> Parsed:
        """Fill the request from its body; without one (the mode hides it) only the headers count."""
        request = exchange.request
        rewrite = names.first(request.headers, names.REWRITE)
        parser: Parser | None = None
        parsed = Parsed(api="raw")
        if body is not None:
            parser = exchange.rules.parsers.find(request.path)
            parsed = parser.parse(body, request.path, request.headers)
            request.body_bytes = len(body)
        request.incoming_model = parsed.model
        request.model = rewrite or parsed.model
        rule = self.steering.rewrites.find(parsed.model) if parsed.rewritable else None
        if rule is not None:
            request.model = rule.model(self._rng.random())
            self.observer.rewritten(request, rule.by)
        if parsed.rewritable and not request.model:
            raise Refused(400, "model not found in request body", by="parser")
        request.stream = parsed.stream
        request.prompts = parsed.prompts
        request.max_output_tokens = parsed.max_output_tokens
        request.cache_salt = parsed.cache_salt
        exchange.parser = None if parsed.skip_response else parser
        return parsed

    def _arrive(self, exchange: Exchange) -> None:
        request = exchange.request
        exchange.rules.hooks.arrived(request, self.observer.hook_failed)
        request.fairness_id = request.fairness_id or request.attributes.get("agent-identity", "") or "default-flow"

    def _given(self, request: Request, metadata: Metadata) -> Given:
        now = self.now()
        endpoints = self.pool.snapshot(now)
        return Given(
            request,
            endpoints,
            now,
            self._rng,
            self._clock,
            subset=names.subset(metadata, endpoints) if metadata and self.habits.subset_filter else None,
            cooling=self.health.left_out(endpoints.rows, now),
            suspended=self.suspensions.names(now),
        )

    def _bodiless(self, exchange: Exchange, metadata: Metadata) -> Forward:
        decision = any_endpoint(self._given(exchange.request, metadata))
        exchange.decision = decision
        self._probe(decision)
        headers = self._own_headers(exchange)
        self.observer.decided(exchange.request, decision)
        exchange.answered()
        return Forward(decision.picked[0].host_port, headers, bodiless=True)

    def _decide(
        self, exchange: Exchange, metadata: Metadata, parsed: Parsed, body: bytes | None
    ) -> Forward | Awaitable[Forward]:
        self._worked_before = self._worked()
        rules = exchange.rules
        waiting = decide(rules.setup, self._given(exchange.request, metadata), rules.columns)
        try:
            slow = next(waiting)
        except StopIteration as done:
            return self._decided(exchange, parsed, body, done.value)
        return self._decide_slowly(exchange, parsed, body, (waiting, slow))

    async def _decide_slowly(
        self, exchange: Exchange, parsed: Parsed, body: bytes | None, under_way: tuple[Wait, Slow]
    ) -> Forward:
        waiting, slow = under_way
        loop = asyncio.get_running_loop()
        end = loop.time() + self.habits.decision_timeout_s
        try:
            while True:
                limit_s = min(slow.timeout_ms / 1000.0, end - loop.time())
                answer = await settled(slow, limit_s, self.observer.hook_failed)
                if loop.time() >= end:
                    limit = f"{self.habits.decision_timeout_s:g} s (--decision-timeout)"
                    raise Refused(503, f"no decision within {limit}", by="deadline")
                slow = waiting.send(answer)
        except StopIteration as done:
            return self._decided(exchange, parsed, body, done.value)
        except Refused as refusal:
            exchange.refuse(refusal)
            raise

    def _decided(self, exchange: Exchange, parsed: Parsed, body: bytes | None, decision: Decision) -> Forward:
        request = exchange.request
        exchange.decision = decision
        if "prefer" in request.headers and names.asks_conditional(request.headers):
            _demand_cached(decision)
        headers = self._own_headers(exchange)
        headers.update(exchange.rules.hooks.picked(request, decision))
        self._charge(exchange, decision)
        self._probe(decision)
        headers.update(self._load_question(parsed, decision))
        self.observer.decided(request, decision)
        if exchange.trace is not None:
            exchange.trace.decided(decision)
        self._suspend(decision)
        changed = body is not None and parsed.rewritable and request.model != request.incoming_model
        forward = Forward(
            ",".join([endpoint.host_port for endpoint in decision.picked]),
            headers,
            set_model(body, request.model) if changed and body is not None else None,
            self._scores(decision),
        )
        exchange.answered()
        return forward

    def _charge(self, exchange: Exchange, decision: Decision) -> None:
        tokens = decision.signals.get("inflight_charge")
        for run in decision.runs.values():
            if not run.picked:
                continue
            if tokens is None:
                first, end = exchange.request.body_bytes / SPARED_PROMPT_BYTES, 0.0
            else:
                row = run.picked_rows[0]
                first, end = float(tokens[0][row]), float(tokens[1][row])
            endpoint = run.picked[0]
            charge = self.pool.ledger.charge(endpoint.key, until_first=first, until_end=end)
            exchange.charges.append((endpoint, charge))
            self.observer.inflight(exchange.request, endpoint, 1, first + end)

    def _probe(self, decision: Decision) -> None:
        if self.health.picked(decision.picked[0].key, decision.decided_at):
            decision.notes.append(f"probe: {decision.picked[0].key} was cooling and is tried with this request")

    def _own_headers(self, exchange: Exchange) -> dict[str, str]:
        request = exchange.request
        own = {} if names.REQUEST_ID in request.headers else {names.REQUEST_ID: request.id}
        if exchange.trace is not None:
            own.update(exchange.trace.headers())
        return own

    def _load_question(self, parsed: Parsed, decision: Decision) -> dict[str, str]:
        """Ask the engine to report its load with the answer, now and then, where it can."""
        if not self.habits.load_report or parsed.stream or parsed.api not in {"chat", "completions"}:
            return {}
        key = decision.picked[0].key
        if decision.decided_at - self._asked_load.get(key, -LOAD_REPORT_S) < LOAD_REPORT_S:
            return {}
        if len(self._asked_load) > 2 * len(self.pool):
            self._asked_load.clear()
        self._asked_load[key] = decision.decided_at
        return {names.LOAD_FORMAT: "JSON"}

    def _scores(self, decision: Decision) -> Metadata:
        if not self.habits.emit_scores:
            return {}
        run = decision.run
        scores = {e.host_port: float(total) for e, total in zip(run.candidates, run.totals, strict=True)}
        return {"envoy.lb": {f"{names.DESTINATION}-scores": scores}}

    def _suspend(self, decision: Decision) -> None:
        if decision.took_s <= SLOW_S and not self.suspensions.watching:
            return
        slow = any(spent.seconds > SLOW_S for spent in decision.spent)
        if slow and not self._worked().since(self._worked_before, SLOW_S):
            return
        for spent in self.suspensions.note(decision.spent, decision.decided_at):
            self.observer.suspended(spent)


def _demand_cached(decision: Decision) -> None:
    """`Prefer: if-available`: the primary endpoint must hold some of the prompt."""
    cached = decision.signals.get("cached_blocks")
    if cached is None or not cached[decision.run.picked_rows[0]] > 0:
        raise Refused(412, "no decode worker has the requested KV cache", by="prefer")
