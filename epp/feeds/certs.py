"""TLS towards the engines, with files that may be exchanged at any time.

In Kubernetes a secret's files change by a symlink swap, and an engine's certificate and the authority that vouches for
it may change with every new address; so the contents are compared, not the times.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path

from epp.feeds import FeedError

CHECK_S = 10.0
"""How often the files are looked at."""

log = logging.getLogger(__name__)


class ClientTls:
    """The TLS context for scraping, made anew when one of its files changes. Raises FeedError if it can't be made."""

    def __init__(self, *, verify: bool, ca: str = "", cert: str = "", key: str = "") -> None:
        if bool(cert) != bool(key):
            raise FeedError("clientCertPath and clientKeyPath belong together; give both or none")
        if ca and not verify:
            log.warning("caCertPath has no effect while insecureSkipVerify is true (the default); set it to false")
        self._verify = verify
        self._ca, self._cert, self._key = ca, cert, key
        try:
            self._seen = self._contents()
            self._context = self._build()
        except (OSError, ssl.SSLError) as error:
            raise FeedError(f"caCertPath, clientCertPath, clientKeyPath: {self._paths()}: {error}") from None
        self._check_at = 0.0
        self._complaint = ""

    def context(self, now: float) -> ssl.SSLContext:
        """The context to use at `now`. Files that can't be used leave the former one in force."""
        if now >= self._check_at:
            self._check_at = now + CHECK_S
            self._reload()
        return self._context

    def _reload(self) -> None:
        try:
            contents = self._contents()
            if contents == self._seen:
                return
            # Noted before the attempt: half of a new pair is tried once, and again when the other half is there.
            self._seen = contents
            self._context = self._build()
        except (OSError, ssl.SSLError) as error:
            self._complain(str(error))
        else:
            self._complaint = ""
            log.info("read new TLS files: %s", self._paths())

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            self._complaint = text
            log.warning("keeping the TLS files read before; %s: %s", self._paths(), text)

    def _contents(self) -> list[bytes]:
        return [Path(name).read_bytes() for name in (self._ca, self._cert, self._key) if name]

    def _paths(self) -> str:
        return ", ".join(name for name in (self._ca, self._cert, self._key) if name)

    def _build(self) -> ssl.SSLContext:
        if self._verify:
            context = ssl.create_default_context(cafile=self._ca or None)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self._cert:
            context.load_cert_chain(self._cert, self._key)
        return context
