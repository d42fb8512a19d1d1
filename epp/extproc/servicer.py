"""The grpcio face: serves ext_proc and health on grpc.aio."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from epp.extproc.dialogue import Dialogue
from epp.extproc.faults import ProtocolError
from epp.extproc.health import PREFIX, Answer, HealthService
from epp.extproc.service import METHOD, StreamWatch

log = logging.getLogger("epp.extproc")


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


class HealthServicer(grpc.GenericRpcHandler):
    """grpc.health.v1 on grpc.aio."""

    def __init__(self, health: HealthService) -> None:
        self._health = health
        # Any: each method has its own pair of messages.
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            f"{PREFIX}Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                request_deserializer=health_pb2.HealthCheckRequest.FromString,
                response_serializer=Answer.SerializeToString,
            ),
            f"{PREFIX}List": grpc.unary_unary_rpc_method_handler(
                self._list,
                request_deserializer=health_pb2.HealthListRequest.FromString,
                response_serializer=health_pb2.HealthListResponse.SerializeToString,
            ),
        }

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Watch is not offered: it answers UNIMPLEMENTED, as upstream's does."""
        return self._methods.get(details.method)

    async def _check(self, request: health_pb2.HealthCheckRequest, _: object) -> health_pb2.HealthCheckResponse:
        return Answer(status=self._health.status(request.service))

    async def _list(self, _: health_pb2.HealthListRequest, __: object) -> health_pb2.HealthListResponse:
        return health_pb2.HealthListResponse(
            statuses={name: Answer(status=self._health.status(name)) for name in self._health.listed}
        )
