"""Alpha plug-ins that change what is on the wire, over TLS: those of the Gateway API's tests, sessions, profiles."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.e2e.processes import Picker, endpoints_file, picker

from .conftest import QUIET
from .gateway import CHAT, DESTINATION, JSON, Gateway, destination, head, piece, refusal, response, set_by

SERVED = "x-conformance-test-served-endpoint"
CONFIG = """
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: ENDPOINTS}}
- {type: header-based-testing-filter}
- {type: destination-endpoint-served-verifier}
- {type: session-affinity-scorer}
- {type: max-score-picker}
- {type: header-profile-handler, parameters: {headerName: x-profile, defaultProfile: session}}
schedulingProfiles:
- {name: test, plugins: [{pluginRef: header-based-testing-filter}, {pluginRef: max-score-picker}]}
- {name: session, plugins: [{pluginRef: session-affinity-scorer}, {pluginRef: max-score-picker}]}
dataLayer:
  discovery: {pluginRef: file-discovery}
"""


def certificate(folder: Path) -> bytes:
    """tls.crt and tls.key for localhost in `folder`; the certificate in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(pem, kind, serialization.NoEncryption()))
    (folder / "tls.crt").write_bytes(made)
    return made


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory, addresses: list[str]) -> Iterator[tuple[Picker, bytes]]:
    folder = tmp_path_factory.mktemp("laboratory")
    shown = certificate(folder)
    endpoints = endpoints_file(folder / "endpoints.yaml", addresses)
    flags = ("--allow-experimental-plugins", "--secure-serving=true", f"--cert-path={folder}")
    with picker(folder, endpoints, *QUIET, *flags, config=CONFIG) as running:
        yield running, shown


@pytest.fixture(scope="module")
def secure(laboratory: tuple[Picker, bytes]) -> Iterator[Gateway]:
    opened = Gateway(laboratory[0].grpc_port, laboratory[1])
    yield opened
    opened.close()


def test_the_certificate_of_the_directory_is_shown(laboratory: tuple[Picker, bytes]) -> None:
    shown = ssl.get_server_certificate(("127.0.0.1", laboratory[0].grpc_port), timeout=10)
    assert shown.strip() == laboratory[1].decode().strip()


def test_a_handshake_that_fails_is_not_told_past_the_log(laboratory: tuple[Picker, bytes]) -> None:
    chooser, _ = laboratory
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", chooser.grpc_port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            stranger.settimeout(10)
            stranger.recv(1)
    assert [line for line in chooser.child.log.read_text().splitlines() if not line.startswith("{")] == []


def test_the_test_header_chooses_the_endpoint(secure: Gateway, addresses: list[str]) -> None:
    chosen = {"x-profile": "test", "test-epp-endpoint-selection": addresses[1]}
    assert destination(secure.ask(chosen)) == addresses[1]


def test_without_the_test_header_nobody_is_left(secure: Gateway) -> None:
    status, text, reason = refusal(secure.ask({"x-profile": "test"}))
    assert (status, reason) == (429, "rejected-saturated")
    assert text == "inference error: ResourceExhausted - no endpoints available for the given request"


def test_a_profile_that_does_not_exist_is_429(secure: Gateway) -> None:
    assert refusal(secure.ask({"x-profile": "nope"}))[0] == 429


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"envoy.lb": {"x-gateway-destination-endpoint-served": "1.2.3.4:5"}}, "1.2.3.4:5"),
        ({"envoy.lb": {"other": 1}}, "fail: missing destination endpoint served metadata"),
        ({}, "fail: missing envoy lb metadata"),
    ],
    ids=["served", "not-told", "no-metadata"],
)
def test_the_verifier_tells_which_endpoint_served(
    secure: Gateway, told: dict[str, dict[str, object]], expected: str
) -> None:
    answers = secure.say(head(), piece(CHAT, end=True), response(JSON, end=True, metadata=told))
    assert set_by(answers[-1])[SERVED] == expected


def test_a_session_returns_to_its_endpoint(secure: Gateway) -> None:
    first = secure.say(head(), piece(CHAT, end=True), response(JSON, end=True))
    token = set_by(first[-1])["x-session-token"]
    again = [destination(secure.ask({"x-session-token": token})) for _ in range(10)]
    assert again == [set_by(first[0])[DESTINATION]] * 10
