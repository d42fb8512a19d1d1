"""Log lines as JSON on stderr, written by a thread of their own so that a full pipe never stalls a request."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

import msgspec

VERBOSE = 15
TRACE = 5
STDERR = 2
MOST_WAITING = 10_000
"""Lines that wait for a slow reader; beyond them lines are dropped and counted."""
PATIENCE_S = 1.0
"""How long the end of the process waits for the last lines to be read."""
MINUTE_S = 60.0
MOST_KEYS = 1_000
STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
"""Attributes every record has; what else it has was given by the caller as `extra` and becomes a field."""


def level_of(verbosity: int) -> int:
    """The logging level that -v stands for: below 0 errors only, 2 INFO, 4 DEBUG, from 5 on everything."""
    if verbosity < 0:
        return logging.ERROR
    return (logging.WARNING, logging.WARNING, logging.INFO, VERBOSE, logging.DEBUG, TRACE)[min(verbosity, 5)]


NAMES = ((logging.ERROR, "error"), (logging.WARNING, "warn"), (VERBOSE, "info"), (logging.DEBUG, "debug"))


def name_of(level: int) -> str:
    """The name dashboards know a level by."""
    return next((name for least, name in NAMES if level >= least), "trace")


class JsonLines(logging.Formatter):
    """One JSON object a record: level, ts (seconds since 1970), logger, caller, msg, and the fields given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "level": name_of(record.levelno),
            "ts": round(record.created, 6),
            "logger": record.name,
            "caller": f"{'/'.join(record.pathname.split(os.sep)[-2:])}:{record.lineno}",
            "msg": record.getMessage(),
        }
        line.update((key, value) for key, value in record.__dict__.items() if key not in STANDARD)
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class Writer(logging.Handler):
    """Writes formatted records to a file descriptor from a thread; never blocks who logs."""

    def __init__(self, fd: int = STDERR, *, most_waiting: int = MOST_WAITING) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self._fd = fd
        self._lines: queue.Queue[bytes | None] = queue.Queue(most_waiting)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record).encode() + b"\n")
        except queue.Full:
            self._dropped += 1
        except Exception:  # noqa: BLE001 - a record that can't be formatted; logging reports it on stderr
            self.handleError(record)

    def close(self) -> None:
        """Wait a moment for what is left, then give up."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=PATIENCE_S)
        self._thread.join(PATIENCE_S)
        super().close()

    def _write(self) -> None:
        # A reader that went away must not end the thread: lines would pile up.
        while (line := self._lines.get()) is not None:
            with suppress(OSError):
                _write_all(self._fd, self._drops() + line)

    def _drops(self) -> bytes:
        """A line about those that were dropped, if any were."""
        if not self._dropped:
            return b""
        dropped, self._dropped = self._dropped, 0
        text = f"{dropped} log lines dropped: the reader of stderr is too slow"
        record = logging.makeLogRecord({"levelno": logging.WARNING, "msg": text, "name": "log"})
        return self.format(record).encode() + b"\n"


def _write_all(fd: int, line: bytes) -> None:
    while line:
        line = line[os.write(fd, line) :]


def setup(verbosity: int, *, fd: int = STDERR) -> Writer:
    """Send all logging there, from `verbosity` up; what was set up before is closed. logging closes it at exit."""
    writer = Writer(fd)
    logging.basicConfig(handlers=[writer], level=level_of(verbosity), force=True)
    return writer


class OnceAMinute:
    """Says whether a kind of line may be written: yes at first, then no for a minute."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._until: dict[str, float] = {}

    def __call__(self, key: str) -> bool:
        now = self._now()
        if self._until.get(key, now) > now:
            return False
        if len(self._until) >= MOST_KEYS:
            self._forget(now)
        self._until.pop(key, None)
        self._until[key] = now + MINUTE_S
        return True

    def _forget(self, now: float) -> None:
        """Keep those that still hold; of too many, the younger half."""
        held = [(key, until) for key, until in self._until.items() if until > now]
        self._until = dict(held[-MOST_KEYS // 2 :])
