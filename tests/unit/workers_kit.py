"""Both halves of a request in one process, with a real socket and the real messages between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from epp.extproc.dialogue import Dialogue
from epp.rules import Habits
from epp.workers import messages as say
from epp.workers.link import Link, joined
from epp.workers.remote import RemoteDesk
from epp.workers.session import Session

from .kit import World
from .test_http2_server import Watch


@dataclass
class Pair:
    """An edge and the decider it knows."""

    world: World
    desk: RemoteDesk
    session: Session
    watch: Watch
    link: Link[say.FromDecider]
    tallies: list[say.Tally] = field(default_factory=list)

    def dialogue(self) -> Dialogue:
        return Dialogue(self.desk, self.world.held)

    async def said(self, dialogue: Dialogue, *messages: ProcessingRequest) -> list[ProcessingResponse]:
        """The answers to the messages, one after another as a transport gives them."""
        answers = []
        for message in messages:
            replies = dialogue.receive(message.SerializeToString())
            answers += replies if isinstance(replies, list) else await replies
            dialogue.sent()
        return [ProcessingResponse.FromString(wire) for wire in answers]

    async def settled(self) -> None:
        """Once all that was said has been heard: a tally follows it."""
        before = len(self.tallies)
        self.link.say(say.Tally(0, [], 0, 0, [], 0, 0, 0.0, 0, 0))
        async with asyncio.timeout(10):
            while len(self.tallies) == before:  # noqa: ASYNC110 - the session is told without an event
                await asyncio.sleep(0)

    async def lose(self) -> None:
        """The socket between them breaks."""
        self.link.close()
        async with asyncio.timeout(10):
            while self.desk.link is not None or (self.session.link is not None and self.session.link.alive):  # noqa: ASYNC110
                await asyncio.sleep(0)


@asynccontextmanager
async def pair(world: World | None = None, **habits: bool) -> AsyncIterator[Pair]:
    world = world or World()
    ours, theirs = socket.socketpair()
    desk, watch = RemoteDesk(Habits(**habits), now=world.clock), Watch()
    tallies: list[say.Tally] = []
    session = Session(world.router, watch, tallies.append)
    session.link = await joined(ours, say.from_edge, session.hear, session.close)
    link = desk.link = await joined(theirs, say.from_decider, desk.hear, desk.abandoned)
    desk.parsers = world.router.parsers
    made = Pair(world, desk, session, watch, link, tallies)
    try:
        yield made
    finally:
        if link.alive:
            await made.lose()
