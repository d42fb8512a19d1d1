import asyncio
import logging
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from epp.extproc.tls import CertificateError, Certificates, Pair, Terms, grpc_credentials, self_signed, server_context

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = self_signed(NOW), self_signed(NOW)


def write(directory: Path, pair: Pair) -> None:
    (directory / "tls.key").write_bytes(pair.key)
    (directory / "tls.crt").write_bytes(pair.chain)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_self_signed_certificate_names_the_organisation_and_lasts_ten_years() -> None:
    certificate = x509.load_pem_x509_certificate(A.chain)
    assert certificate.subject == certificate.issuer
    assert [attribute.value for attribute in certificate.subject] == ["Inference Ext"]
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 3650
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)


def test_an_rsa_key_can_be_had() -> None:
    certificate = x509.load_pem_x509_certificate(self_signed(NOW, rsa_key=True).chain)
    assert isinstance(certificate.public_key(), rsa.RSAPublicKey)


def test_without_a_directory_the_pair_is_made_once() -> None:
    certificates = Certificates()
    assert certificates.current() is certificates.current()


def test_a_directory_is_read_at_start(tmp_path: Path) -> None:
    write(tmp_path, A)
    assert Certificates(str(tmp_path)).current() == A


@pytest.mark.parametrize(
    ("key", "chain", "problem"),
    [
        (None, A.chain, "tls.key: No such file or directory"),
        (A.key, None, "tls.crt: No such file or directory"),
        (b"junk", A.chain, "tls.key holds no private key in PEM"),
        (A.key, b"junk", "tls.crt holds no certificate in PEM"),
        (A.key, B.chain, "tls.key is not the key of tls.crt"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(
    tmp_path: Path, key: bytes | None, chain: bytes | None, problem: str
) -> None:
    for name, content in (("tls.key", key), ("tls.crt", chain)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(CertificateError) as caught:
        Certificates(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path} must hold tls.crt and tls.key: ")
    assert problem in str(caught.value)


def test_a_key_that_openssl_finds_too_short_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = rsa.generate_private_key

    def short(exponent: int, _size: int) -> rsa.RSAPrivateKey:
        return made(exponent, 1024)

    monkeypatch.setattr(rsa, "generate_private_key", short)
    write(tmp_path, self_signed(NOW, rsa_key=True))
    with pytest.raises(CertificateError, match="OpenSSL does not take them: EE_KEY_TOO_SMALL") as caught:
        Certificates(str(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path} must hold tls.crt and tls.key: ")


def test_changed_files_are_taken_up_at_the_next_look(tmp_path: Path) -> None:
    clock = Clock()
    write(tmp_path, A)
    certificates = Certificates(str(tmp_path), reload=True, clock=clock)
    write(tmp_path, B)
    assert certificates.current() == A
    clock.now = 1.0
    assert certificates.current() == B


def test_changed_files_are_left_alone_without_reload(tmp_path: Path) -> None:
    clock = Clock()
    write(tmp_path, A)
    certificates = Certificates(str(tmp_path), clock=clock)
    write(tmp_path, B)
    clock.now = 60.0
    assert certificates.current() == A


def test_half_a_pair_leaves_the_former_one_in_force(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    write(tmp_path, A)
    certificates = Certificates(str(tmp_path), reload=True, clock=clock)
    (tmp_path / "tls.crt").write_bytes(B.chain)
    with caplog.at_level(logging.ERROR):
        for clock.now in (1.0, 2.0, 3.0):
            assert certificates.current() == A
    assert [record.getMessage() for record in caplog.records] == [
        f"keeping the certificate read before: {tmp_path} must hold tls.crt and tls.key: "
        "tls.key is not the key of tls.crt"
    ]
    (tmp_path / "tls.key").write_bytes(B.key)
    clock.now = 4.0
    assert certificates.current() == B


def shown_at(port: int) -> bytes:
    """The certificate a server shows, in PEM."""
    return ssl.get_server_certificate(("127.0.0.1", port)).encode()


def test_grpc_shows_a_changed_certificate_to_the_next_client(tmp_path: Path) -> None:
    clock = Clock()
    write(tmp_path, A)
    certificates = Certificates(str(tmp_path), reload=True, clock=clock)

    async def run() -> list[bytes]:
        server = grpc.aio.server()
        port = server.add_secure_port("127.0.0.1:0", grpc_credentials(certificates))
        await server.start()
        first = await asyncio.to_thread(shown_at, port)
        write(tmp_path, B)
        clock.now = 1.0
        second = await asyncio.to_thread(shown_at, port)
        await server.stop(None)
        return [first, second]

    assert asyncio.run(run()) == [A.chain, B.chain]


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = None) -> ssl.SSLObject:
    """The client's end of a finished handshake, held in memory."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = ends[:]
    while waiting:
        for end in waiting[:]:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
                waiting.remove(end)
    return ends[0]


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shown_by(connection: ssl.SSLObject) -> bytes:
    return ssl.DER_cert_to_PEM_cert(connection.getpeercert(True) or b"").encode()


@pytest.mark.parametrize("name", [None, "epp.llm.svc"])
def test_a_context_shows_the_pair_in_force(tmp_path: Path, name: str | None) -> None:
    clock = Clock()
    write(tmp_path, A)
    context = server_context(Certificates(str(tmp_path), reload=True, clock=clock))
    shown = []
    for clock.now, pair in ((0.0, A), (1.0, B)):
        write(tmp_path, pair)
        connection = handshake(context, client_context(), name)
        shown.append(shown_by(connection))
    assert shown == [A.chain, B.chain]


def test_with_a_client_ca_strangers_are_turned_away(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(B.chain)
    context = server_context(Certificates(), Terms(client_ca_file=str(tmp_path / "ca.crt")))
    with pytest.raises(ssl.SSLError):
        handshake(context, client_context())


def test_with_a_client_ca_those_it_signed_are_let_in(tmp_path: Path) -> None:
    write(tmp_path, B)
    context = server_context(Certificates(), Terms(client_ca_file=str(tmp_path / "tls.crt")))
    client = client_context()
    client.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    assert handshake(context, client).version() == "TLSv1.3"


def test_a_client_ca_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="must hold the clients' CA in PEM"):
        server_context(Certificates(), Terms(client_ca_file=str(tmp_path / "none")))


def test_a_clients_ca_that_is_gone_leaves_the_former_context_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    write(tmp_path, A)
    authority = tmp_path / "ca.crt"
    authority.write_bytes(A.chain)
    certificates = Certificates(str(tmp_path), reload=True, clock=clock)
    server = server_context(certificates, Terms(client_ca_file=str(authority)))
    client = client_context()
    client.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    authority.unlink()
    write(tmp_path, B)
    with caplog.at_level(logging.ERROR):
        for clock.now in (1.0, 2.0):
            assert shown_by(handshake(server, client)) == A.chain
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"keeping the certificate read before: {authority} must hold the clients' CA in PEM")
    authority.write_bytes(A.chain)
    assert shown_by(handshake(server, client)) == B.chain
