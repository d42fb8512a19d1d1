"""The certificate that listeners show: made in memory, or read from a directory and taken up when it changes."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    import grpc

CERTIFICATE_FILE, KEY_FILE = "tls.crt", "tls.key"
ORGANISATION = "Inference Ext"
VALID = timedelta(days=3650)
CHECK_S = 1.0
"""The files are looked at no more often than this, and only when somebody connects."""

log = logging.getLogger(__name__)


class CertificateError(Exception):
    """A certificate that can't be used; the text names the directory and the files it must hold."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate, with those that vouch for it, in PEM."""

    key: bytes
    chain: bytes


def self_signed(now: datetime, *, rsa_key: bool = False) -> Pair:
    """A certificate nobody can verify, for ten years; gateways that dial a picker are told not to verify.

    Its key is on the curve P-256: made in a millisecond where RSA takes fifty, cheaper in each handshake, and known to
    every TLS 1.2 client. `rsa_key` is for operators who allow only cipher suites that need RSA.
    """
    key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANISATION)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + VALID)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return Pair(private, certificate.public_bytes(pem))


def read_pair(directory: Path) -> Pair:
    """The pair in a directory. Raises CertificateError unless both files are there and belong together."""
    try:
        pair = Pair((directory / KEY_FILE).read_bytes(), (directory / CERTIFICATE_FILE).read_bytes())
    except OSError as error:
        raise _broken(directory, f"{error.filename}: {error.strerror}") from None
    _check(directory, pair)
    return pair


def _check(directory: Path, pair: Pair) -> None:
    try:
        certificate = x509.load_pem_x509_certificates(pair.chain)[0]
    except ValueError:
        raise _broken(directory, f"{CERTIFICATE_FILE} holds no certificate in PEM") from None
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError):
        raise _broken(directory, f"{KEY_FILE} holds no private key in PEM without a password") from None
    if key.public_key() != certificate.public_key():
        raise _broken(directory, f"{KEY_FILE} is not the key of {CERTIFICATE_FILE}")
    try:
        _load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)
    except ssl.SSLError as error:
        raise _broken(directory, f"OpenSSL does not take them: {error.reason or error}") from None


def _broken(directory: Path, problem: str) -> CertificateError:
    return CertificateError(f"{directory} must hold {CERTIFICATE_FILE} and {KEY_FILE}: {problem}")


class Certificates:
    """The pair in force. `directory` "" = self-signed, made now; else its files, read again if `reload`."""

    def __init__(
        self,
        directory: str = "",
        *,
        reload: bool = False,
        rsa_key: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = Path(directory) if directory else None
        self._reload = reload and bool(directory)
        self._clock = clock
        self._check_at = clock() + CHECK_S
        if self._directory is None:
            self._pair = self_signed(datetime.now(UTC), rsa_key=rsa_key)
        else:
            self._pair = read_pair(self._directory)
        self._complaint = ""

    def current(self) -> Pair:
        """The pair to show now; a pair that can't be used leaves the former one in force, with one log line."""
        now = self._clock()
        if self._reload and self._directory is not None and now >= self._check_at:
            self._check_at = now + CHECK_S
            self._read(self._directory)
        return self._pair

    def _read(self, directory: Path) -> None:
        try:
            pair = read_pair(directory)
        except CertificateError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("keeping the certificate read before: %s", error)
            return
        self._complaint = ""
        if pair != self._pair:
            self._pair = pair
            log.info("certificate read anew", extra={"directory": str(directory)})


def grpc_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Credentials that ask for the pair in force at each handshake."""
    import grpc

    shown = certificates.current()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal shown
        pair = certificates.current()
        if pair is shown:
            return None
        shown = pair
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)])

    first = grpc.ssl_server_certificate_configuration([(shown.key, shown.chain)])
    # The stubs forget that None means "as before".
    return grpc.dynamic_ssl_server_credentials(first, fetch)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Terms:
    """What else a context agrees to. TLS is 1.2 at least whatever `minimum` says: HTTP/2 allows nothing older."""

    client_ca_file: str = ""
    """Clients must show a certificate that this CA signed."""
    minimum: str = ""
    """Go's name of the lowest version."""
    ciphers: str = ""
    """OpenSSL's names of the suites up to TLS 1.2, joined by colons; "" = its choice."""
    alpn: tuple[str, ...] = ()
    """Protocols to agree on."""


def server_context(certificates: Certificates, terms: Terms | None = None) -> ssl.SSLContext:
    """A context that shows the pair in force at each handshake. Raises CertificateError for terms that can't be met;
    later, when the pair has changed, they leave the former context in force, with one log line.
    """
    agreed = terms or Terms()
    shown = certificates.current()
    context = _context(shown, agreed)
    complaint = ""

    def choose(connection: ssl.SSLObject, _name: str | None, _first: ssl.SSLContext) -> None:
        nonlocal shown, context, complaint
        pair = certificates.current()
        if pair is not shown:
            try:
                shown, context = pair, _context(pair, agreed)
                complaint = ""
            except CertificateError as error:
                if str(error) != complaint:
                    log.error("keeping the certificate read before: %s", error)
                complaint = str(error)
        connection.context = context

    first = context
    # OpenSSL asks for every connection, named or not.
    first.sni_callback = choose
    return first


def _context(pair: Pair, terms: Terms) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lowest = ssl.TLSVersion.TLSv1_3 if terms.minimum == "VersionTLS13" else ssl.TLSVersion.TLSv1_2
    context.minimum_version = lowest
    _load(context, pair)
    if terms.ciphers:
        try:
            context.set_ciphers(terms.ciphers)
        except ssl.SSLError:
            raise CertificateError(f"OpenSSL has none of the cipher suites {terms.ciphers}") from None
    if terms.alpn:
        context.set_alpn_protocols(list(terms.alpn))
    if terms.client_ca_file:
        try:
            context.load_verify_locations(cafile=terms.client_ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CertificateError(f"{terms.client_ca_file} must hold the clients' CA in PEM: {error}") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    """The module ssl reads only from files: one in memory, since no directory may be writable."""
    fd = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(pair.key + b"\n" + pair.chain)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
