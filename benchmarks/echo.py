"""A bare grpc.aio server that answers every ext_proc message with the same bytes: the floor this transport has."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import grpc
import grpc.aio
import uvloop
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from epp.extproc.tls import self_signed


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


async def main(port: int, *, tls: bool) -> None:
    server = grpc.aio.server(handlers=[Echo()])
    if tls:
        pair = self_signed(datetime.now(UTC))
        server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([(pair.key, pair.chain)]))
    else:
        server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), tls="tls" in sys.argv[2:]))
