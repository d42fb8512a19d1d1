"""Scraping over TLS, with certificates that change while it runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import logging
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from yarl import URL

from epp.feeds import FeedError
from epp.feeds.certs import CHECK_S, ClientTls
from epp.feeds.fetch import ScrapeError, fetch, session

START = dt.datetime(2020, 1, 1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Writes `ca.crt`, and pairs of certificate and key for 127.0.0.1 signed by it, into `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self._sign("authority", self._key.public_key(), ca=True))

    def pair(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        cert_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        cert_path.write_bytes(self._sign(name, key.public_key(), ca=False))
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return cert_path, key_path

    def server_context(self, *, clients: bool = False) -> ssl.SSLContext:
        """For a server of this authority; `clients`: it asks for a certificate of this authority too."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.ca if clients else None)
        context.load_cert_chain(*self.pair("server"))
        context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_NONE
        return context

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, *, ca: bool) -> bytes:
        built = x509.CertificateBuilder(
            issuer_name=_name("authority"),
            subject_name=_name(name),
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=START,
            not_valid_after=START + dt.timedelta(days=36_500),
        )
        built = built.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        return built.add_extension(names, critical=False).sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def outcome(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """`ok`, or the kind of failure, of a scrape over TLS."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def main() -> str:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server)
        url = URL(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/metrics")
        async with listening, session(5) as http:
            try:
                return (await fetch(http, url, client)).decode()
            except ScrapeError as error:
                return error.kind

    return asyncio.run(main())


def swap(link: Path, target: Path) -> None:
    """Point a symlink elsewhere in one step, as a mounted secret is renewed."""
    fresh = link.with_suffix(".new")
    fresh.symlink_to(target)
    fresh.rename(link)


def test_without_verification_any_certificate_will_do(tmp_path: Path) -> None:
    assert outcome(Authority(tmp_path).server_context(), ClientTls(verify=False).context(0)) == "ok"


def test_a_certificate_of_nobody_we_trust_fails_the_handshake(tmp_path: Path) -> None:
    assert outcome(Authority(tmp_path).server_context(), ClientTls(verify=True).context(0)) == "tls"


def test_a_certificate_of_the_given_authority_is_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = ClientTls(verify=True, ca=str(authority.ca))
    assert outcome(authority.server_context(), tls.context(0)) == "ok"


@pytest.mark.parametrize(("shown", "expected"), [(True, "ok"), (False, "refusal")])
def test_the_client_certificate_is_shown(tmp_path: Path, shown: bool, expected: str) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.pair("client")
    tls = ClientTls(verify=False, cert=str(cert), key=str(key)) if shown else ClientTls(verify=False)
    found = outcome(authority.server_context(clients=True), tls.context(0))
    # With TLS 1.3 the server refuses after its handshake is over, so the client may see only a cut connection.
    assert found == "ok" if expected == "ok" else found in {"tls", "lost"}


def test_files_behind_a_swapped_symlink_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first, second = Authority(tmp_path / "1"), Authority(tmp_path / "2")
    swap(tmp_path / "ca.crt", first.ca)
    tls = ClientTls(verify=True, ca=str(tmp_path / "ca.crt"))
    assert outcome(second.server_context(), tls.context(0)) == "tls"
    swap(tmp_path / "ca.crt", second.ca)
    assert outcome(second.server_context(), tls.context(CHECK_S)) == "ok"


def test_an_unchanged_context_is_kept_and_files_are_not_read_at_each_scrape(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = ClientTls(verify=True, ca=str(authority.ca))
    before = tls.context(0)
    assert tls.context(CHECK_S) is before
    Authority(tmp_path)
    assert tls.context(2 * CHECK_S - 1) is before
    assert tls.context(2 * CHECK_S) is not before


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nhalf"], ids=["gone", "empty", "half"])
def test_files_that_cannot_be_used_leave_the_former_in_force(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None
) -> None:
    authority = Authority(tmp_path)
    tls = ClientTls(verify=True, ca=str(authority.ca))
    before, good = tls.context(0), authority.ca.read_bytes()
    authority.ca.unlink() if content is None else authority.ca.write_bytes(content)
    assert tls.context(CHECK_S) is before
    assert "keeping the TLS files read before" in caplog.text
    authority.ca.write_bytes(good)
    assert outcome(authority.server_context(), tls.context(2 * CHECK_S)) == "ok"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"verify": True, "ca": "/nowhere/ca.crt"}, "/nowhere/ca.crt: .*No such file"),
        ({"verify": False, "cert": "/nowhere/tls.crt"}, "belong together; give both or none"),
    ],
)
def test_files_missing_at_the_start_are_refused_by_name(settings: dict[str, str | bool], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        ClientTls(**settings)  # type: ignore[arg-type]  # a table of keyword arguments


def test_an_authority_that_nobody_asks_is_remarked_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ClientTls(verify=False, ca=str(Authority(tmp_path).ca))
    assert "caCertPath has no effect while insecureSkipVerify is true" in caplog.text
