"""The composition root: builds every part, runs them in one TaskGroup, drains."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import uvloop

from epp import __version__
from epp.cluster import Cluster, Told, connect
from epp.compiled import compiled
from epp.config import Built, Live
from epp.extproc.http2_server import Http2Server
from epp.extproc.readiness import Readiness, Standing
from epp.extproc.serving import Server
from epp.extproc.tls import CertificateError, Certificates, Terms, server_context
from epp.feeds import FeedError
from epp.feeds.file import FileDiscovery, FileFeed
from epp.feeds.file_steering import FileSteering
from epp.kube import CredentialsError
from epp.kube.reviews import Reviewer
from epp.obs import logs
from epp.obs.admin import Admin
from epp.obs.metrics_cluster import ClusterMetrics
from epp.obs.metrics_reload import ReloadMetrics
from epp.obs.metrics_workers import WorkerMetrics
from epp.obs.traces import OtlpError, Tracer
from epp.options import Options
from epp.picker import Picker
from epp.plugins import Plugin
from epp.reload import Reloader
from epp.workers.child import parents_socket
from epp.workers.decider import Decider

log = logging.getLogger("epp")
QUIET_S = 2.0
"""The drain ends early when no stream was open for so long: gateways have noticed by then."""
GRACE_S = 5.0
"""Streams still open after the drain get this long to end."""
Work = dict[str, Coroutine[Any, Any, None]]
"""What runs until the end, by name."""


def serve(options: Options, live: Live) -> int:
    """Serve until a signal; returns the exit code: 0, or 1 if it could not start."""
    logs.setup(options.verbosity)
    told = (*options.warnings, *live.built.warnings, *options.unsupported_by(options.transport))
    for warning in (*told, *_without_effect(options, live.built)):
        log.warning(warning)
    tracer = None
    try:
        tracer = Tracer.from_environment(options.tracing, os.environ, version=__version__)
        uvloop.run(App(options, live, tracer, parents_socket()).serve())
    except (OSError, FeedError, CertificateError, CredentialsError, OtlpError) as error:
        log.error("can't serve: %s", error)
        return 1
    except ExceptionGroup:
        log.exception("a part of the picker failed")
        return 1
    finally:
        if tracer is not None:
            tracer.close()
    return 0


def _without_effect(options: Options, built: Built) -> list[str]:
    """Flags that were given and need Kubernetes, where endpoints come from a file."""
    if built.discovery is None:
        return []
    needs = {
        "endpoint-selector": "endpoints come from the file",
        "ha-enable-leader-election": "this replica is ready without being elected",
        "metrics-endpoint-auth": "/metrics is open to all, /debug to this machine",
    }
    return [
        f"--{name} has no effect with {built.discovery.path}, which stands in for Kubernetes: {instead}"
        for name, instead in needs.items()
        if name in options.given and getattr(options, name.replace("-", "_"))
    ]


class App:
    """One picker with its listeners and feeds: how they live and end.

    With a `parent` other processes serve ext_proc (`--workers`), and this one decides for them.
    """

    def __init__(
        self, options: Options, live: Live, tracer: Tracer | None, parent: socket.socket | None = None
    ) -> None:
        self._options = options
        self._parent = parent
        self._draining = False
        self._in_a_hurry = False
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._picker = Picker(options, live.built, tracer)
        self._cluster: Cluster | None = None
        self._readiness = Readiness(self._standing, self._plugins)
        outcomes = ReloadMetrics(self._picker.metrics.families, time.time)
        self._reloader = Reloader(live, self._picker.use, outcomes)

    async def serve(self) -> None:
        """Until SIGTERM or SIGINT, then drain. Raises what says that it can't start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reloader.look_now)
        self._picker.start()
        discovery = self._picker.built.discovery
        work = await (self._in_cluster() if discovery is None else self._from_file(discovery))
        server = self._made_server()
        admin = self._made_admin()
        try:
            await self._start(server, admin)
        except BaseException:
            for one in work.values():
                one.close()
            await asyncio.gather(server.stop(0), admin.stop())
            await self._leave_cluster()
            raise
        edges: Work = {"edges": server.run()} if isinstance(server, Decider) else {}
        await self._run(work | self._chores() | edges, server)
        await admin.stop()
        await self._leave_cluster()

    async def _from_file(self, discovery: FileDiscovery) -> Work:
        feed = FileFeed(discovery, self._picker.sinks, clock=time.monotonic)
        steering = FileSteering(discovery, self._options.pool_name, self._options.pool_group, self._picker.steer)
        await feed.load()
        await steering.load()
        return {"endpoints file": feed.run(), "manifests file": steering.run()}

    async def _in_cluster(self) -> Work:
        picker = self._picker
        told = Told(picker.sinks, picker.steer, picker.pool.lost, stands=self._look)
        self._cluster = await connect(self._options, told, ClusterMetrics(picker.metrics.families))
        log.info("asking the API server at %s", self._cluster.api.host)
        return {"kubernetes": self._cluster.run()}

    async def _leave_cluster(self) -> None:
        if self._cluster is not None:
            await self._cluster.close()

    def _chores(self) -> Work:
        picker = self._picker
        return {
            "gauges": picker.refresh_gauges(),
            "loop lag": picker.measure_lag(),
            "scraping": picker.scraping.run(),
            "reload": self._reloader.run(),
        }

    async def _run(self, work: Work, server: Server) -> None:
        parts = asyncio.create_task(_together(work), name="parts")
        stopped = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({parts, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if parts.done():
            stopped.cancel()
            await server.stop(0)
            await parts
        # Everything goes on while streams are drained; only the lease is given up, for another replica to lead.
        leaving = asyncio.create_task(self._give_up_lead(), name="release")
        await self._drain(server)
        await leaving
        parts.cancel()
        await asyncio.wait({parts})

    async def _give_up_lead(self) -> None:
        if self._cluster is not None:
            await self._cluster.release()

    # ---- readiness

    def _standing(self) -> Standing:
        cluster, picker = self._cluster, self._picker
        protocol = cluster.app_protocol if cluster is not None else ""
        return Standing(
            synced=picker.pool.synced,
            draining=self._draining,
            app_protocol=protocol,
            protocol_ok=picker.built.parsers.protocols_allow(protocol),
            leading=cluster is None or cluster.leading,
        )

    def _look(self) -> None:
        """Something changed that readiness depends on: say so in the log without waiting for a probe."""
        self._readiness.ready()

    # ---- listeners

    def _made_server(self) -> Server:
        options, picker = self._options, self._picker
        elected = self._cluster is not None and self._cluster.election is not None
        if self._parent is not None:
            return Decider(
                self._parent,
                picker.router,
                picker.streams,
                self._readiness,
                lambda: self._reloader.live,
                metrics=WorkerMetrics(picker.metrics, picker.metrics.registry),
                held=picker.held,
                elected=elected,
            )
        limits = {"max_recv_bytes": options.max_recv_bytes, "max_send_bytes": options.max_send_bytes}
        if options.transport == "grpcio":
            from epp.extproc.server import GrpcServer

            return GrpcServer(picker.dialogue, picker.streams, self._readiness, elected=elected, **limits)
        return Http2Server(
            picker.dialogue,
            picker.streams,
            self._readiness,
            elected=elected,
            max_waiting_bytes=options.max_held_bytes,
            terms=Terms(minimum=options.tls_min_version, ciphers=options.openssl_ciphers, alpn=("h2",)),
            **limits,
        )

    def _made_admin(self) -> Admin:
        cluster, picker = self._cluster, self._picker
        asked = cluster is not None and self._options.metrics_endpoint_auth
        return Admin(
            picker.metrics.registry,
            picker.decisions,
            self._config,
            plugins_state=picker.plugins_state,
            queue=picker.turnstile.state,
            endpoints=picker.endpoint_states,
            kubernetes=None if cluster is None else cluster.shown,
            authenticator=Reviewer(cluster.api) if asked and cluster is not None else None,
            pprof=self._options.enable_pprof,
        )

    def _config(self) -> str:
        """What is in force at this moment."""
        return self._picker.built.resolved.yaml()

    def _plugins(self) -> Iterable[Plugin]:
        return self._picker.built.setup.plugins.values()

    async def _start(self, server: Server, admin: Admin) -> None:
        options = self._options
        # The files are followed even without --enable-cert-reload: a rotated certificate must not end the service.
        shows = options.secure_serving and self._parent is None
        shown = Certificates(options.cert_path, reload=True, rsa_key=options.needs_rsa) if shows else None
        pair = Certificates(options.metrics_cert_dir, reload=True) if options.metrics_cert_dir else None
        tls = server_context(pair, Terms(client_ca_file=options.metrics_client_ca_file)) if pair else None
        metrics_port = await admin.start(options.metrics_port, tls=tls)
        # Last: the server of several processes says that all is there.
        ports = await server.start(options.grpc_port, options.grpc_health_port, shown)
        where = dict(zip(("grpc_port", "grpc_health_port"), ports, strict=True)) | {"metrics_port": metrics_port}
        how = {"tls": options.secure_serving, "compiled": compiled(), "endpoints": len(self._picker.pool)}
        log.info("serving", extra=where | how)

    # ---- the end

    def _told_to_stop(self, number: signal.Signals) -> None:
        """SIGTERM drains; SIGINT, from somebody at a terminal, does not wait for quiet; a second one ends the drain."""
        if self._draining:
            self._stop_now.set()
        self._in_a_hurry = number == signal.SIGINT
        self._draining = True
        self._stop.set()

    async def _drain(self, server: Server) -> None:
        """Readiness is gone already: serve on until streams have ended or the drain time is over."""
        limit_s = self._options.drain_timeout
        streams = self._picker.streams
        log.info("draining", extra={"drain_timeout_s": limit_s, "streams": streams.count})
        quiet = asyncio.create_task(streams.quiet(0.0 if self._in_a_hurry else QUIET_S), name="quiet")
        told = asyncio.create_task(self._stop_now.wait(), name="second signal")
        done, waiting = await asyncio.wait({quiet, told}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if quiet not in done:
            why = "drain ended by a second signal" if told in done else "drain time is over"
            log.warning(why, extra={"streams": streams.count})
        # What can go has gone: whoever still waits hears now that he must ask elsewhere.
        self._picker.turnstile.close()
        await server.stop(0.0 if told in done else min(GRACE_S, limit_s))
        log.info("stopped", extra={"inflight": self._picker.pool.ledger.requests})


async def _together(work: Mapping[str, Coroutine[Any, Any, None]]) -> None:
    """All of it, each as a task by its name; the first failure ends the others."""
    async with asyncio.TaskGroup() as tasks:
        for name, one in work.items():
            tasks.create_task(one, name=name)
