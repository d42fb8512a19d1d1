"""Requests to the API server over the official client's transport: its credentials, its TLS, its connections.

Its models are not used: they cost fifty times what decoding into the few fields we read does.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import (
    SERVICE_CERT_FILENAME,
    SERVICE_HOST_ENV_NAME,
    SERVICE_TOKEN_FILENAME,
    InClusterConfigLoader,
)

from epp.kube import UNREADABLE, ApiError, CredentialsError

CONNECT_S = 5.0
RENEW_EVERY_S = 5.0
"""Credentials that are refused are read again, at most so often."""
LONGEST_LINE = 32 * 1024 * 1024
"""etcd holds objects of 1.5 MB; what has no end of line for so long is not an API server."""
LONGEST_WAIT_S = 60.0
"""Asked for with Retry-After; who asks for more is asked again all the same: an overloaded API server asks for 1 s."""
Load = Callable[[], Awaitable[Configuration]]


class _Status(msgspec.Struct):
    """What errors carry: a Status object, as far as we read it."""

    message: str = ""
    reason: str = ""


async def credentials(environ: Mapping[str, str]) -> Configuration:
    """Where the API server is and who we are, looked for where kubectl and Go's client look. Raises CredentialsError.

    KUBECONFIG, else the service account of the pod, else ~/.kube/config.
    """
    found = Configuration()
    home = Path(environ.get("HOME", "/nonexistent"), ".kube", "config")
    named = environ.get("KUBECONFIG", "")
    if named and not any(os.path.isfile(path) for path in named.split(os.pathsep)):  # noqa: ASYNC240 - as below
        raise CredentialsError(f"KUBECONFIG={named}: there is no such file")
    try:
        if named or SERVICE_HOST_ENV_NAME not in environ:
            if not named and not os.path.isfile(home):  # noqa: ASYNC240 - once, before anything is served
                raise CredentialsError(
                    "no Kubernetes API server to ask: this is no pod (KUBERNETES_SERVICE_HOST is not set) and neither "
                    "KUBECONFIG nor ~/.kube/config names one"
                )
            await load_kube_config(named or str(home), client_configuration=found, persist_config=False)
        else:
            loader = InClusterConfigLoader(SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME, environ=dict(environ))
            loader.load_and_set(found)
    except CredentialsError:
        raise
    except Exception as error:  # whatever a library raises at a file of somebody's: it is told, and nothing is lost
        where = f"KUBECONFIG={named}" if named else "the service account of this pod"
        raise CredentialsError(f"{where} can't be used: {error}") from error
    return found


class Api:
    """The API server. Tokens are read again while it runs; refused ones, and changed trust, at once."""

    def __init__(self, load: Load, configuration: Configuration) -> None:
        self._load = load
        self._client = ApiClient(configuration)
        self._former: ApiClient | None = None
        self._renewed_at = -RENEW_EVERY_S

    @classmethod
    async def connect(cls, environ: Mapping[str, str] = os.environ) -> Api:
        """Find the credentials; nothing is sent yet. Raises CredentialsError."""

        async def load() -> Configuration:
            return await credentials(environ)

        return cls(load, await load())

    @property
    def host(self) -> str:
        """`https://host:port` of the server."""
        return str(self._client.configuration.host)

    async def close(self) -> None:
        for client in (self._client, self._former):
            if client is not None:
                await client.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 10.0,
    ) -> bytes:
        """One request; returns the body of the answer. Raises ApiError."""
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(CONNECT_S, timeout_s))
        async with self._answer(method, path, query or {}, limits, body) as answer:
            return await answer.read()

    @asynccontextmanager
    async def stream(
        self, path: str, *, query: Mapping[str, str], silent_s: float
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """A watch, open once this is entered: its lines, as many at once as have arrived.

        Raises ApiError; silence of `silent_s` seconds is one too, with the reason Timeout.
        """
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silent_s)
        async with self._answer("GET", path, query, limits) as answer:
            yield _lines(answer.content)

    async def lines(self, path: str, *, query: Mapping[str, str], silent_s: float) -> AsyncIterator[bytes]:
        """The same, a line at a time."""
        async with self.stream(path, query=query, silent_s=silent_s) as batches:
            async for lines in batches:
                for line in lines:
                    yield line

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        body: bytes | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self.host}{path}{'?' if query else ''}{urlencode(query)}"
        try:
            answer = await self._sent(method, url, body, limits)
            async with answer:
                if answer.status == 401:
                    await self._renew()
                if answer.status >= 400:
                    raise _refusal(answer, await answer.read())
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError, ConfigException) as error:
            if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
                await self._renew()
            reason = "Timeout" if isinstance(error, TimeoutError) else ""
            raise ApiError(0, f"{method} {self.host}{path}: {_told(error, limits)}", reason) from error

    async def _sent(
        self, method: str, url: str, body: bytes | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        client = self._client
        headers = {"Accept": "application/json", "User-Agent": "endpoint-picker"}
        await client.update_params_for_auth(headers, None, ["BearerToken"], "", method, None)
        sent = None if body is None else msgspec.json.decode(body)
        answer = await client.rest_client.request(method, url, headers=headers, body=sent, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _renew(self) -> None:
        """Read the credentials again: a token was rotated, or the server's certificate authority."""
        now = time.monotonic()
        if now - self._renewed_at < RENEW_EVERY_S:
            return
        self._renewed_at = now
        try:
            fresh = ApiClient(await self._load())
        except CredentialsError:
            # What there is may still do: files are half written for a moment.
            return
        # Others may be in the middle of requests on the one in use now; those on the one before it had their time.
        retired, self._former, self._client = self._former, self._client, fresh
        if retired is not None:
            await retired.close()


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
        if len(rest) > LONGEST_LINE:
            raise ApiError(0, f"a line of more than {LONGEST_LINE} bytes")
    if rest:
        yield [rest]


def _refusal(answer: aiohttp.ClientResponse, body: bytes) -> ApiError:
    try:
        status = msgspec.json.decode(body, type=_Status)
    except UNREADABLE:
        status = _Status(body[:200].decode("utf-8", "replace").strip() or str(answer.reason))
    after = answer.headers.get("Retry-After", "")
    wait_s = min(float(after), LONGEST_WAIT_S) if after.isascii() and after.isdigit() else None
    return ApiError(answer.status, status.message or str(answer.reason), status.reason, wait_s)


def _told(error: BaseException, limits: aiohttp.ClientTimeout) -> str:
    if isinstance(error, TimeoutError):
        waited = limits.total or limits.sock_read
        return f"no answer within {waited:g} s" if waited else "no answer in time"
    return str(error) or type(error).__name__
