"""The requests that make tokens, whole or streamed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random

import msgspec
from aiohttp import HttpVersion11, web

from sim.answers import choices
from sim.api import Api, ApiError, Ask, Reply
from sim.faults import Fault, Faults
from sim.live import LiveEngine, Ticket
from sim.settings import ServerSettings
from sim.types import Load

LOAD_REPORT = "endpoint-load-metrics"


def load_report(form: str, load: Load) -> str:
    """The value of the response header, spelled as vLLM does. `form` is JSON or TEXT."""
    waiting, kv_usage = float(load.waiting), load.kv_usage
    if form.upper() == "TEXT":
        return f"TEXT named_metrics.num_requests_waiting={waiting}, named_metrics.kv_cache_usage_perc={kv_usage}"
    return f'JSON {{"named_metrics": {{"num_requests_waiting": {waiting}, "kv_cache_usage_perc": {kv_usage}}}}}'


class ChunkWriter:
    """Writes the pieces of one choice as HTTP chunks, straight to the connection.

    Going through the response object for each token would wake its task for each; the timer's tick is enough.
    """

    __slots__ = ("_chunks", "_sent", "_transport")

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._sent = 0
        self._transport: asyncio.Transport | None = None

    def take(self, produced: int) -> bytes:
        """What there is to send once `produced` tokens exist."""
        count, self._sent = produced - self._sent, produced
        return next(self._chunks) if count == 1 else b"".join(islice(self._chunks, count))

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def __call__(self, produced: int) -> None:
        if produced > self._sent and self._transport is not None and not self._transport.is_closing():
            payload = self.take(produced)
            self._transport.write(b"%x\r\n%b\r\n" % (len(payload), payload))


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request that is being answered."""

    api: Api
    request: web.Request
    headers: Mapping[str, str]
    """Of the answer."""
    reply: Reply
    tickets: Sequence[Ticket]


class Inference:
    """Answers inference requests from one engine."""

    def __init__(self, settings: ServerSettings, live: LiveEngine, faults: Faults, adapters: Mapping[str, str]) -> None:
        self._settings = settings
        self._live = live
        self._faults = faults
        self._adapters = adapters
        self._rng = Random(settings.seed)

    async def answer(self, api: Api, request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
        """`headers` go with every answer that is no error; errors are ApiErrors."""
        ask = api.parse(await request.read())
        self._faults.check(request.headers.get("X-Return-Error"), self._rng)
        if self._faults.fault is Fault.HANG:
            await asyncio.Event().wait()
        reply = self._reply(api, ask)
        if self._live.load().waiting >= self._settings.max_waiting:
            raise ApiError(429, f"{self._settings.max_waiting} requests are waiting already; try again later.")
        tickets = [self._live.submit(choice.job) for choice in reply.choices]
        exchange = Exchange(api, request, headers, reply, tickets)
        try:
            return await (_stream(exchange, self._live) if ask.stream else _whole(exchange, self._live))
        finally:
            for ticket in tickets:
                self._live.drop(ticket)

    def _reply(self, api: Api, ask: Ask) -> Reply:
        made = choices(ask, self._settings, self._adapter(ask.model))
        name = f"{api.id_prefix}{self._rng.getrandbits(64):016x}"
        return Reply(name, int(time.time()), ask.model or self._settings.names[0], ask, made)

    def _adapter(self, model: str) -> str:
        """The adapter a model name stands for, "" for the model itself, which no name means too. Else ApiError(404)."""
        if model in self._adapters:
            return model
        if model and model not in self._settings.names:
            known = ", ".join([*self._settings.names, *self._adapters])
            raise ApiError(404, f"The model `{model}` does not exist. Valid aliases: {known}.", "model")
        return ""


async def _whole(exchange: Exchange, live: LiveEngine) -> web.Response:
    for ticket in exchange.tickets:
        await ticket.finished
    headers = dict(exchange.headers)
    form = exchange.request.headers.get(f"{LOAD_REPORT}-format")
    if form and exchange.api.reports_load:
        headers[LOAD_REPORT] = load_report(form, live.load())
    body = msgspec.json.encode(exchange.api.whole(exchange.reply))
    return web.Response(body=body, content_type="application/json", headers=headers)


async def _stream(exchange: Exchange, live: LiveEngine) -> web.StreamResponse:
    """The headers go out with the first token."""
    api, request, reply = exchange.api, exchange.request, exchange.reply
    if request.version < HttpVersion11:
        raise ApiError(400, "Streaming needs HTTP/1.1.")
    await asyncio.wait([ticket.begun for ticket in exchange.tickets], return_when=asyncio.FIRST_COMPLETED)
    writers = [ChunkWriter(api.chunks(reply, choice)) for choice in reply.choices]
    response = web.StreamResponse(headers=exchange.headers)
    response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
    response.enable_chunked_encoding()
    await response.prepare(request)
    pieces = [writer.take(live.produced(ticket)) for writer, ticket in zip(writers, exchange.tickets, strict=True)]
    await response.write(api.opening(reply) + b"".join(pieces))
    if request.transport is not None:
        for writer, ticket in zip(writers, exchange.tickets, strict=True):
            writer.attach(request.transport)
            live.watch(ticket, writer)
    for ticket in exchange.tickets:
        await ticket.finished
    await response.write_eof(api.closing(reply))
    return response
