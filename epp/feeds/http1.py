"""A GET over HTTP/1.1 as a state machine without I/O: what to send, and what came back, byte by byte if need be.

An engine's page comes a thousand times a second; a general client spends more on it than reading it costs. Understands
pages of known length, in chunks, and up to the end of the connection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 4 * 1024


class HttpError(Exception):
    """What came is no HTTP answer; the text says why."""


class TooLargeError(HttpError):
    """The body is larger than it may be."""


class CutOffError(Exception):
    """The connection ended before the answer did."""


@dataclass(slots=True)
class Answer:
    """An answer while it arrives: `feed` until it is true. Raises HttpError."""

    max_bytes: int
    status: int = 0
    body: bytes = b""
    """Whole once `feed` returned true."""
    begun: bool = False
    """Something came."""
    reusable: bool = False
    """Another request may follow on the connection."""
    _wire: bytearray = field(default_factory=bytearray)
    _at: int = 0
    """In _wire: the end of the head, afterwards where the next chunk begins."""
    _length: int = -1
    """Of the body; -1 = not told."""
    _chunked: bool = False
    _pieces: list[bytes] = field(default_factory=list)
    _held: int = 0

    def feed(self, wire: bytes) -> bool:
        """Take what came; True once the answer is whole."""
        self.begun = True
        if not self.status:
            self._wire += wire
            if not self._head():
                return False
            wire = bytes(memoryview(self._wire)[self._at :])
            self._wire.clear()
            self._at = 0
        return self._chunks(wire) if self._chunked else self._plain(wire)

    def ended(self) -> None:
        """The connection ended: fine for a body of untold length. Raises CutOffError."""
        if not self.status or self._chunked or self._length >= 0:
            raise CutOffError("the connection ended before the answer did")
        self.body = b"".join(self._pieces)

    def _plain(self, wire: bytes) -> bool:
        self._keep(wire)
        if self._length < 0 or self._held < self._length:
            return False
        if self._held > self._length:
            self.reusable = False
        self.body = b"".join(self._pieces)[: self._length]
        return True

    def _keep(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self.max_bytes:
            raise TooLargeError(f"the page is larger than {self.max_bytes} bytes")
        self._pieces.append(piece)

    def _chunks(self, wire: bytes) -> bool:
        self._wire += wire
        done = False
        while not done and (line := self._line()) is not None:
            size, start = line
            if size == 0:
                done = self._trailers(start)
                break
            if len(self._wire) < start + size + 2:
                break
            if self._wire[start + size : start + size + 2] != b"\r\n":
                raise HttpError("a chunk is longer than it says")
            self._keep(bytes(self._wire[start : start + size]))
            self._at = start + size + 2
        del self._wire[: self._at]
        self._at = 0
        if done:
            self.body = b"".join(self._pieces)
        return done

    def _line(self) -> tuple[int, int] | None:
        """(size of the next chunk, where it begins); None = not there yet."""
        end = self._wire.find(b"\r\n", self._at)
        if end < 0 or end - self._at > MAX_CHUNK_LINE_BYTES:
            if len(self._wire) - self._at > MAX_CHUNK_LINE_BYTES:
                raise HttpError("no size before a chunk")
            return None
        digits = bytes(self._wire[self._at : end]).partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF") or len(digits) > 8:
            raise HttpError(f"{digits[:20]!r} is no size of a chunk")
        size = int(digits, 16)
        if self._held + size > self.max_bytes:
            raise TooLargeError(f"the page is larger than {self.max_bytes} bytes")
        return size, end + 2

    def _trailers(self, start: int) -> bool:
        """Passed over; what follows the answer makes the connection useless."""
        none = self._wire.startswith(b"\r\n", start)
        end = start + 2 if none else self._wire.find(b"\r\n\r\n", start) + 4
        if end < start + 2:
            if len(self._wire) - start > MAX_HEAD_BYTES:
                raise HttpError("the trailers do not end")
            return False
        self.reusable = self.reusable and end == len(self._wire)
        return True

    def _head(self) -> bool:
        """Read the head once it is whole, those of interim answers passed over."""
        while (end := self._wire.find(b"\r\n\r\n")) >= 0:
            if end > MAX_HEAD_BYTES:
                break
            lines = bytes(self._wire[:end]).split(b"\r\n")
            status = _status(lines[0])
            if status >= 200:
                self._at = end + 4
                self._read(lines, status)
                return True
            del self._wire[: end + 4]
        if len(self._wire) > MAX_HEAD_BYTES:
            raise HttpError(f"the head is larger than {MAX_HEAD_BYTES} bytes")
        if not b"HTTP/1.".startswith(self._wire[:7]):
            raise HttpError(f"no HTTP/1 answer begins with {bytes(self._wire[:20])!r}")
        return False

    def _read(self, lines: list[bytes], status: int) -> None:
        self.status = status
        closing = lines[0].startswith(b"HTTP/1.0")
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise HttpError(f"{line[:40]!r} is no header")
            match name.lower():
                case b"content-length":
                    self._sized(value.strip())
                case b"transfer-encoding":
                    if value.strip().lower() != b"chunked":
                        raise HttpError(f"transfer encoding {value.strip()[:40]!r} was not asked for")
                    self._chunked = True
                case b"connection":
                    closing = b"close" in value.lower() or (closing and b"keep-alive" not in value.lower())
        if status in (204, 304):
            self._length = 0
        self.reusable = not closing and (self._chunked or self._length >= 0)

    def _sized(self, value: bytes) -> None:
        if not value.isdigit() or len(value) > 18 or self._length not in (-1, int(value)):
            raise HttpError(f"content length {value[:40]!r} is none, or another than before")
        self._length = int(value)
        if self._length > self.max_bytes:
            raise TooLargeError(f"the page is larger than {self.max_bytes} bytes")


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit() or int(rest[:3]) < 100:
        raise HttpError(f"{line[:40]!r} is no status line of HTTP/1")
    return int(rest[:3])


def request(host: str, path: str) -> bytes:
    """A GET of `path` (raw, as in the URL). Engines are asked not to compress: it would cost both sides more."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: epp\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode()
