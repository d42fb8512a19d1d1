"""What the Gateway API's conformance tests ask of a picker; in production any client could choose its endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from epp import Decision, Endpoint, Endpoints, Mask, Request

SELECTION = "test-epp-endpoint-selection"
SERVED_HEADER = "x-conformance-test-served-endpoint"
LB_NAMESPACE = "envoy.lb"
SERVED = "x-gateway-destination-endpoint-served"


def header_based_testing_filter(request: Request, endpoints: Endpoints) -> Mask:
    """Keep the endpoints that the header test-epp-endpoint-selection lists: `IP` or `IP:port`, comma-separated.

    One endpoint an IP, the first mention counts; an IP alone means its last endpoint. Without the header none is kept.
    """
    kept: Mask = np.zeros(len(endpoints), dtype=np.bool_)
    addresses = endpoints.derive(("scorers", "address"), _addresses)
    ports = endpoints.derive(("scorers", "port"), _ports)
    seen: set[str] = set()
    for item in request.header(SELECTION).split(","):
        address, port = split_host_port(item.strip())
        rows = np.flatnonzero((addresses == address) & ((ports == port) if port else True))
        if address and address not in seen and len(rows):
            seen.add(address)
            kept[rows[-1]] = True
    return kept


def split_host_port(text: str) -> tuple[str, str]:
    """(IP, port) of `IP`, `IP:port`, `[IPv6]`, `[IPv6]:port` or a bare IPv6; port "" if there is none."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        return address, rest.removeprefix(":")
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, port
    return text, ""


def _addresses(records: Sequence[Endpoint]) -> npt.NDArray[Any]:  # string arrays of whatever width
    return np.array([record.address for record in records], dtype=np.str_)


def _ports(records: Sequence[Endpoint]) -> npt.NDArray[Any]:
    return np.array([str(record.port) for record in records], dtype=np.str_)


class DestinationEndpointServedVerifier:
    """Tell the client which endpoint Envoy says it used, in the header x-conformance-test-served-endpoint."""

    def response_headers(
        self, request: Request, decision: Decision, headers: object, metadata: Mapping[str, Mapping[str, object]]
    ) -> Mapping[str, str]:
        told = metadata.get(LB_NAMESPACE)
        if not told:
            return {SERVED_HEADER: "fail: missing envoy lb metadata"}
        return {SERVED_HEADER: str(told.get(SERVED) or "fail: missing destination endpoint served metadata")}
