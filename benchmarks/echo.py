"""A bare grpc.aio server that answers every ext_proc message with the same bytes: the floor this transport has."""

from __future__ import annotations

import sys

import grpc
import grpc.aio
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse


class Echo(grpc.GenericRpcHandler):
    """One method for every path."""

    def __init__(self) -> None:
        answer = ProcessingResponse()
        answer.request_headers.response.SetInParent()
        self._answer = answer.SerializeToString()
        self._method = grpc.stream_stream_rpc_method_handler(self._process)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        return self._method

    async def _process(self, _: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        while isinstance(await context.read(), bytes):
            await context.write(self._answer)


async def main(port: int) -> None:
    server = grpc.aio.server(handlers=[Echo()])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
