"""HTTP/1.1 answers whole, byte by byte and broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp.feeds.http1 import Answer, CutOffError, HttpError, TooLargeError

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nm 1 \n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nm 1\r\n2\r\n \n\r\n0\r\n"
WHOLE = {
    "sized": SIZED,
    "chunked": CHUNKED + b"\r\n",
    "chunked, with trailers": CHUNKED + b"x: y\r\nz: 1\r\n\r\n",
    "after interim answers": b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 \r\n\r\n" + SIZED,
}


def fed(wire: bytes, size: int) -> tuple[Answer, bool]:
    """`size` bytes a time; whether the last of them made it whole, and none before."""
    answer = Answer(1000)
    done = [answer.feed(wire[at : at + size]) for at in range(0, len(wire), size)]
    assert not any(done[:-1])
    return answer, done[-1]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("name", WHOLE)
def test_an_answer_is_read_whole_and_in_pieces(name: str, size: int) -> None:
    answer, whole = fed(WHOLE[name], size)
    assert (whole, answer.status, answer.body, answer.reusable) == (True, 200, b"m 1 \n", True)


def test_a_body_of_untold_length_goes_on_to_the_end() -> None:
    answer, whole = fed(b"HTTP/1.1 200 OK\r\n\r\nm 1\n", 3)
    answer.ended()
    assert (whole, answer.body, answer.reusable) == (False, b"m 1\n", False)


@pytest.mark.parametrize(
    ("head", "reusable"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n", True, id="1.1"),
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False, id="1.1, close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n", False, id="1.0"),
        pytest.param(b"HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n", True, id="1.0, keep-alive"),
    ],
)
def test_a_connection_is_kept_as_the_answer_says(head: bytes, reusable: bool) -> None:
    answer, _ = fed(head + b"content-length: 0\r\n\r\n", 1000)
    assert answer.reusable == reusable


def test_what_follows_an_answer_spoils_the_connection() -> None:
    answer, whole = fed(SIZED + b"HTTP", 1000)
    assert (whole, answer.body, answer.reusable) == (True, b"m 1 \n", False)


@pytest.mark.parametrize("cut", range(1, len(SIZED)))
def test_an_answer_cut_off_anywhere_is_told(cut: int) -> None:
    answer, whole = fed(SIZED[:cut], 1000)
    assert not whole
    with pytest.raises(CutOffError):
        answer.ended()


@pytest.mark.parametrize(
    ("wire", "error"),
    [
        pytest.param(b"SSH-2.0-x\r\n", HttpError, id="another protocol"),
        pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", HttpError, id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", HttpError, id="no header"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", HttpError, id="negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", HttpError, id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n", HttpError, id="unknown encoding"),
        pytest.param(CHUNKED[:-3] + b"+1\r\n", HttpError, id="signed chunk size"),
        pytest.param(CHUNKED[:-3] + b"1\r\nxyz", HttpError, id="chunk longer than told"),
        pytest.param(CHUNKED[:-3] + b"x" * 5000, HttpError, id="chunk size without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", TooLargeError, id="length told"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, TooLargeError, id="length untold"),
        pytest.param(CHUNKED[:-3] + b"3e7\r\n", TooLargeError, id="chunk that would go beyond"),
    ],
)
@pytest.mark.parametrize("size", [1, 10_000])
def test_what_is_no_answer_is_refused(wire: bytes, error: type[HttpError], size: int) -> None:
    with pytest.raises(error):
        fed(wire, size)


@given(st.lists(st.sampled_from([SIZED, CHUNKED, b"HTTP/1.1 200 OK\r\n", b"\r\n", b"5", b"zz\r\n"]) | st.binary()))
def test_no_bytes_bring_another_error_out(pieces: list[bytes]) -> None:
    answer = Answer(1000)
    try:
        for piece in pieces:
            if answer.feed(piece):
                break
    except HttpError:
        pass
    assert len(answer.body) <= 1000
