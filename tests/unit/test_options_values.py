import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp import options_values as of
from epp import units
from epp.options import parse
from epp.options_argv import OptionsError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("50ms", 0.05),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        ("0", 0.0),
        ("+2s", 2.0),
        (".5s", 0.5),
        ("1h1m1s1ms1us1ns", 3661.001001001),
        ("3µs", 3e-6),
    ],
)
def test_go_durations(text: str, seconds: float) -> None:
    assert units.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("25M", 25_000_000),
        ("25MB", 25_000_000),
        ("10Mi", 10 << 20),
        ("10MiB", 10 << 20),
        ("1.5Gi", 3 << 29),
        ("1e3", 1000),
        ("2E3", 2000),
        ("2E", 2 * 10**18),
        ("9E9", 9 * 10**9),
        ("4k", 4000),
        ("512b", 512),
        ("1500m", 2),
        ("1n", 1),
    ],
)
def test_kubernetes_quantities(text: str, size: int) -> None:
    assert units.quantity(text) == size


@given(st.integers(0, 2**40), st.sampled_from(["", "Ki", "Mi"]))
def test_a_quantity_is_its_number_times_its_unit(number: int, unit: str) -> None:
    assert units.quantity(f"{number}{unit}") == number * {"": 1, "Ki": 1 << 10, "Mi": 1 << 20}[unit]


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "t", "T", "1"])
def test_yes(text: str) -> None:
    assert of.switch(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "False", "f", "F", "0"])
def test_no(text: str) -> None:
    assert of.switch(text) is False


@pytest.mark.parametrize(
    ("flag", "texts"),
    [
        ("drain-timeout", ["", "5", "s", "1 s", "-1s", "1d", "1sx", "++1s"]),
        ("decision-timeout", ["0", "0s", "-1s"]),
        ("max-body-bytes", ["", "-1", "-1Mi", "10K", "10mi", "1 Mi", "Mi", "10MiBB", "10E", "16Ei", "1e99999999999"]),
        ("grpc-max-recv-msg-size", ["-1", "ten", "16Ei"]),
        ("secure-serving", ["", "yes", "2", "on"]),
        ("max-cooling-share", ["nan", "-0.1", "1.1", "", "half"]),
        ("scrape-budget", ["0", "nan", "inf", "-1", ""]),
        ("metrics-port", ["", "-1", "65536", "http"]),
        ("zap-log-level", ["loud", ""]),
        ("tls-min-version", ["1.2", "TLSv1.2"]),
        ("zap-encoder", ["xml"]),
        ("v", ["", "x"]),
    ],
)
def test_refused_values(flag: str, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(OptionsError, match=re.escape(f"--{flag}: '{text}' is not")):
            parse([f"--{flag}={text}"], {})
