"""Clients that send requests all the time and write down what they saw."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

from .chat import body, events
from .client import Reply


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: when, how long it took, and what came back."""

    at: float
    """time.monotonic()."""
    took_s: float
    reply: Reply
    streamed: bool = False

    @property
    def status(self) -> int:
        """0 = no answer, or one that was cut."""
        whole = self.reply.whole and (not self.streamed or self.reply.status != 200 or _ended(self.reply))
        return self.reply.status if whole else 0

    @property
    def picked(self) -> bool:
        """Whether the picker chose where it went; it must run with --emit-decision-id."""
        return self.reply.header("x-epp-decision-id") is not None


def _ended(reply: Reply) -> bool:
    return events(reply)[-1:] == [b"[DONE]"]


@dataclass
class Load:
    """What was sent so far, in the order of the answers."""

    port: int
    pause_s: float
    patience_s: float
    sent: list[Sent] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def statuses(self) -> list[int]:
        return [one.status for one in self.sent]

    def now(self) -> float:
        """The time as `Sent.at` has it."""
        return time.monotonic()

    def since(self, moment: float) -> list[Sent]:
        """Those that were sent at that time or later."""
        return [one for one in self.sent if one.at >= moment]

    def run(self, clients: int, streams: int, tokens: int) -> None:
        async def every() -> None:
            waits = aiohttp.ClientTimeout(total=self.patience_s)
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=waits
                ) as session,
                asyncio.TaskGroup() as group,
            ):
                for number in range(clients):
                    group.create_task(self._client(session, f"client {number}"))
                for number in range(streams):
                    group.create_task(self._client(session, f"reader {number}", stream=True, max_tokens=tokens))

        asyncio.run(every())

    async def _client(self, session: aiohttp.ClientSession, name: str, **more: object) -> None:
        count = 0
        while not self._over.is_set():
            count += 1
            at = time.monotonic()
            reply = await self._reply(session, body(f"{name} {count}", **more))
            self.sent.append(Sent(at, time.monotonic() - at, reply, "stream" in more))
            await asyncio.sleep(self.pause_s)

    async def _reply(self, session: aiohttp.ClientSession, sent: bytes) -> Reply:
        url, headers = f"http://127.0.0.1:{self.port}/v1/completions", {"content-type": "application/json"}
        try:
            async with session.post(url, data=sent, headers=headers) as answer:
                head = "\r\n".join(["", *(f"{key}: {value}" for key, value in answer.headers.items())])
                try:
                    return Reply(answer.status, head, await answer.read())
                except aiohttp.ClientPayloadError:
                    return Reply(answer.status, head, b"", whole=False)
        except (TimeoutError, aiohttp.ClientError):
            return Reply(0, "", b"")

    def stop(self) -> None:
        self._over.set()


@contextmanager
def load(
    port: int,
    *,
    clients: int = 4,
    streams: int = 0,
    tokens: int = 50,
    pause_s: float = 0.01,
    patience_s: float = 10.0,
) -> Iterator[Load]:
    """`clients` send short requests one after another, `streams` read long answers, until the block ends."""
    running = Load(port, pause_s, patience_s)
    thread = threading.Thread(target=running.run, args=(clients, streams, tokens), name="load")
    thread.start()
    try:
        yield running
    finally:
        running.stop()
        thread.join()
