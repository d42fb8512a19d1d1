"""Flags that exclude or need each other."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from epp.kube.lease import Timings
from epp.options_argv import OptionsError

if TYPE_CHECKING:
    from epp.options import Options

POD_OF_DEPLOYMENT = re.compile(r"(.+)-[a-z0-9]+-[a-z0-9]+")
"""A pod's name, with that of its Deployment as the group."""


def check(options: Options) -> None:
    """What can be said from the flags alone. Raises OptionsError."""
    if options.config_file and options.config_text:
        raise OptionsError("--config-file and --config-text exclude each other; give one of them")
    _one_port_each(options)
    if options.metrics_client_ca_file and not options.metrics_cert_dir:
        raise OptionsError("--metrics-client-ca-file needs --metrics-cert-dir: client certificates are a part of TLS")
    if options.metrics_cert_dir and not options.metrics_client_ca_file and not options.metrics_endpoint_auth:
        raise OptionsError(
            "--metrics-cert-dir with --metrics-endpoint-auth=false needs --metrics-client-ca-file: "
            "otherwise nobody is asked who they are"
        )
    if options.workers > 1 and options.transport != "h2":
        raise OptionsError(
            f"--workers={options.workers} needs --transport=h2: only its connections can be handed to other processes"
        )
    if options.workers > 1 and os.path.exists(options.config_file) and not os.path.isfile(options.config_file):
        raise OptionsError(
            f"--workers={options.workers} needs a file that can be read more than once, which --config-file="
            f"{options.config_file} is not"
        )
    if options.response_phase == "none" and options.transport != "h2":
        raise OptionsError(
            "--response-phase=none needs --transport=h2: only that ends a stream in the same write as the last piece, "
            "and what Envoy sends of the response before it knows of the end is lost"
        )
    try:
        Timings(options.ha_lease_duration, options.ha_renew_deadline, options.ha_retry_period)
    except ValueError as error:
        raise OptionsError(str(error)) from None


def _one_port_each(options: Options) -> None:
    flags: dict[int, str] = {}
    for name in ("grpc_port", "grpc_health_port", "metrics_port"):
        port, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if port and port in flags:
            raise OptionsError(f"{flags[port]} and {flag} are both {port}; give each listener a port of its own")
        flags[port] = flag


def endpoints_told(options: Options, *, file_mode: bool) -> None:
    """Is it told which endpoints to serve? `file_mode`: a file tells. Raises OptionsError."""
    if options.pool_name and options.endpoint_selector:
        raise OptionsError("--pool-name and --endpoint-selector exclude each other; give one of them")
    if not (options.pool_name or options.endpoint_selector or file_mode):
        remedy = "or set dataLayer.discovery in the configuration to read endpoints from a file"
        raise OptionsError(f"either --pool-name or --endpoint-selector must be set, {remedy}")
    if options.endpoint_selector and not 1 <= len(options.endpoint_target_ports) <= 8:
        have = len(options.endpoint_target_ports)
        raise OptionsError(f"--endpoint-selector needs 1 to 8 --endpoint-target-ports, not {have}")
    if options.endpoint_selector and not POD_OF_DEPLOYMENT.fullmatch(options.pod_name):
        raise OptionsError(
            f"--endpoint-selector takes the pool's name from the variable POD_NAME, which is {options.pod_name!r}; "
            "it must be a Deployment's pod name such as my-epp-7d4b9c-x2x9p"
        )
