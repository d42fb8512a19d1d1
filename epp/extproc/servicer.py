"""The grpcio face: serves ext_proc and health on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import grpc
import grpc.aio

from epp.extproc.dialogue import Dialogue
from epp.extproc.faults import ProtocolError

log = logging.getLogger("epp.extproc")
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = f"/{SERVICE}/Process"


class StreamWatch(Protocol):
    """Hears of streams; codes are spelled as gRPC's Go library does (OK, Canceled, Internal)."""

    def stream_opened(self) -> None: ...

    def stream_closed(self, seconds: float, code: str) -> None: ...


class Servicer(grpc.GenericRpcHandler):
    """One `Process` call per request. `open_dialogue` makes the other half of each."""

    def __init__(self, open_dialogue: Callable[[], Dialogue], watch: StreamWatch) -> None:
        self._open = open_dialogue
        self._watch = watch
        # Messages stay bytes here: what they mean is the dialogue's business.
        self._method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(self._process)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        return self._method if details.method == METHOD else None

    async def _process(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        dialogue = self._open()
        pushed: set[asyncio.Task[None]] = set()
        dialogue.push = partial(_push, context, pushed)
        began = time.monotonic()
        cause, code = "error", "OK"
        self._watch.stream_opened()
        try:
            await _talk(dialogue, context)
            cause = "client-disconnect"
        except asyncio.CancelledError:
            cause, code = "client-disconnect", "Canceled"
            raise
        except ProtocolError as error:
            code = "InvalidArgument"
            log.warning("stream closed: %s", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            code = "Internal"
            log.exception("stream closed: internal error")
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {error!r}")
        finally:
            self._watch.stream_closed(time.monotonic() - began, code)
            dialogue.close(cause)


def _push(
    context: grpc.aio.ServicerContext[bytes, bytes], pushed: set[asyncio.Task[None]], replies: list[bytes]
) -> None:
    """Say what was not asked for; Envoy ends the stream once it has read it."""

    async def say() -> None:
        # The stream may end meanwhile, which is what this is for.
        with suppress(asyncio.InvalidStateError, grpc.aio.UsageError, grpc.aio.AbortError):
            for reply in replies:
                await context.write(reply)

    task = asyncio.ensure_future(say())
    pushed.add(task)
    task.add_done_callback(pushed.discard)


async def _talk(dialogue: Dialogue, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    """Until Envoy has said all, or we have refused. The normal end is end-of-file or cancellation, at any point."""
    while not dialogue.over:
        message = await context.read()
        if not isinstance(message, bytes):  # grpc.aio.EOF
            return
        replies = dialogue.receive(message)
        for reply in replies if isinstance(replies, list) else await replies:
            await context.write(reply)
        dialogue.sent()
