import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from epp.obs import logs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """(read, write) ends; the root logger is as before afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    ends = os.pipe()
    yield ends
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    for end in ends:
        os.close(end)


def record(text: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": logging.INFO, "name": "epp"})


def lines(pipe: tuple[int, int], writer: logs.Writer) -> list[dict[str, object]]:
    writer.close()
    return [json.loads(line) for line in os.read(pipe[0], 1 << 20).splitlines()]


def test_a_line_has_level_time_logger_caller_message_and_fields(pipe: tuple[int, int]) -> None:
    writer = logs.setup(2, fd=pipe[1])
    logging.getLogger("epp.feeds").warning("endpoint %s is gone", "a", extra={"endpoint": "ns/a", "seconds": 1.5})
    (line,) = lines(pipe, writer)
    assert str(line.pop("caller")).startswith("unit/test_obs_logs.py:")
    assert isinstance(line.pop("ts"), float)
    assert line == {
        "level": "warn",
        "logger": "epp.feeds",
        "msg": "endpoint a is gone",
        "endpoint": "ns/a",
        "seconds": 1.5,
    }


def test_an_exception_brings_its_stack(pipe: tuple[int, int]) -> None:
    writer = logs.setup(2, fd=pipe[1])
    try:
        raise KeyError("x")
    except KeyError:
        logging.exception("failed")
    (line,) = lines(pipe, writer)
    assert (line["level"], str(line["stacktrace"]).splitlines()[-1]) == ("error", "KeyError: 'x'")


def test_a_field_of_any_type_can_be_written(pipe: tuple[int, int]) -> None:
    writer = logs.setup(2, fd=pipe[1])
    logging.info("odd", extra={"what": ValueError("odd")})
    assert lines(pipe, writer)[0]["what"] == "odd"


@pytest.mark.parametrize(
    ("verbosity", "names"),
    [
        (-1, ["error"]),
        (0, ["error", "warn"]),
        (2, ["error", "warn", "info"]),
        (3, ["error", "warn", "info", "info"]),
        (4, ["error", "warn", "info", "info", "debug"]),
        (5, ["error", "warn", "info", "info", "debug", "trace"]),
        (9, ["error", "warn", "info", "info", "debug", "trace"]),
    ],
)
def test_verbosity_lets_through(pipe: tuple[int, int], verbosity: int, names: list[str]) -> None:
    writer = logs.setup(verbosity, fd=pipe[1])
    for level in (logging.ERROR, logging.WARNING, logging.INFO, logs.VERBOSE, logging.DEBUG, logs.TRACE):
        logging.getLogger("epp").log(level, "x")
    writer.close()
    text = os.read(pipe[0], 1 << 20)
    assert [json.loads(line)["level"] for line in text.splitlines()] == names


def test_a_full_pipe_drops_lines_and_counts_them() -> None:
    read, write = os.pipe()
    writer = logs.Writer(write, most_waiting=4)
    for _ in range(20):
        writer.emit(record("x" * 65_536))
    text = b""
    while b"log lines dropped: the reader of stderr is too slow" not in text:
        text += os.read(read, 1 << 16)
    os.close(read)
    writer.close()
    os.close(write)
    assert text.count(b'"msg":"xxx') < 20


def test_a_reader_that_went_away_does_not_end_the_writing() -> None:
    read, write = os.pipe()
    os.close(read)
    writer = logs.Writer(write, most_waiting=1)
    for _ in range(3):
        writer.emit(record("x"))
    writer.close()
    os.close(write)
    assert "log" not in {thread.name for thread in threading.enumerate()}


def test_once_a_minute_for_each_key() -> None:
    times = iter([0.0, 1.0, 2.0, 59.9, 60.0, 61.0])
    once = logs.OnceAMinute(lambda: next(times))
    assert [once(key) for key in "aabaaa"] == [True, False, True, False, True, False]


def test_of_too_many_keys_the_oldest_are_forgotten() -> None:
    once = logs.OnceAMinute(lambda: 0.0)
    for i in range(logs.MOST_KEYS + 1):
        once(str(i))
    assert [once(key) for key in ("0", str(logs.MOST_KEYS - 1))] == [True, False]
